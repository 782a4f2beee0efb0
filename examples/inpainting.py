# %% [markdown]
# # Inpaint a part of an object
#
# Images, masks and a prompt in; images with the masked pixels filled by a diffusion model out. This file runs as it stands,
# `python examples/inpainting.py`; VS Code, PyCharm, Spyder, and Jupyter with jupytext show it as a notebook.

# %%
import numpy as np
from PIL import Image

from dfeat import Inpainter
from dfeat.demo.canvas import polygon_mask
from dfeat.demo.worlds import draw_one

# %% [markdown]
# A drawn leopard, and a mask over one of its parts: True where it is hidden. With files of yours: `"photo.jpg"` and
# `"mask.png"`, white where hidden.

# %%
drawing = draw_one("val", 1, 2, seed=0)
image = Image.fromarray(drawing.image)
_, part = max(drawing.parts, key=lambda part: np.ptp(part[1], axis=0).prod())
mask = polygon_mask([part], image.width)
Image.fromarray(np.hstack([drawing.image, np.where(mask[..., None], 0, drawing.image)]))

# %%
inpaint = Inpainter.from_pretrained("demo", scheduler="dpmsolver++", steps=10, guidance_scale=3)
inpaint

# %% [markdown]
# Three seeds give three versions. `paste=True` keeps the pixels outside the mask exactly as they were.

# %%
filled = inpaint([image] * 3, mask, "A class of leopard", seeds=[0, 1, 2], paste=True)
Image.fromarray(np.hstack(list(filled)))

# %%
bool((filled[0][~mask] == drawing.image[~mask]).all())
