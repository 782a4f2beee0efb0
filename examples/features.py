# %% [markdown]
# # Diffusion features of images
#
# Images in, one row of numbers each out: what a diffusion model's U-Net computes inside. No training and no GPU is needed. This
# file runs as it stands, `python examples/features.py`; VS Code, PyCharm, Spyder, and Jupyter with jupytext show it as a notebook.

# %%
import numpy as np
from PIL import Image

from dfeat import FeatureExtractor
from dfeat.demo.dresses import WNIDS
from dfeat.demo.worlds import draw_one

# %% [markdown]
# Four classes, three drawn images each. With images of yours: `images = "photographs/"`, or a list of paths, PIL images, arrays
# or tensors.

# %%
kinds = [0, 5, 9, 14]
images = [Image.fromarray(draw_one("val", kind, number, seed=0).image) for kind in kinds for number in range(3)]
Image.fromarray(np.hstack([np.asarray(image) for image in images]))

# %% [markdown]
# `"demo"` is the model that ships with the package, for 64 pixels. A folder in the diffusers layout or a Hub id with its
# `revision` takes its place; files and PIL images are resized to the model's own size.

# %%
extract = FeatureExtractor.from_pretrained("demo", blocks=["mid", "up.1"], timestep=100)
extract

# %%
features = extract(images)
features.shape, extract.feature_names[:3]

# %% [markdown]
# The same image has the same features alone and in any batch. How alike are two images? The cosine of their features:

# %%
centred = features - features.mean(0)
rows = (centred / centred.norm(dim=1, keepdim=True)).numpy()
cosines = (rows @ rows.T).round(2)
cosines[:3, :6]

# %% [markdown]
# The nearest other image of each, and whether it is of the same class:

# %%
nearest = (cosines - 2 * np.eye(len(images))).argmax(1)
{WNIDS[kind]: [bool(nearest[3 * place + n] // 3 == place) for n in range(3)] for place, kind in enumerate(kinds)}
