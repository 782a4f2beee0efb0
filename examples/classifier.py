# %% [markdown]
# # Use a trained classifier
#
# A model that a run trained, on images of your own. This file runs once `make demo` has:
# `python examples/classifier.py`; VS Code, PyCharm, Spyder, and Jupyter with jupytext show it as a notebook.

# %%
import numpy as np
from PIL import Image

from dfeat import Classifier
from dfeat.demo.worlds import draw_occluded

# %% [markdown]
# Any `results/<run>/training/<method>/<backbone>/seed<n>`. This one fuses diffusion features and makes them itself.

# %%
MODEL = "results/demo/training/sd_features/convnext/seed0"
classify = Classifier.from_pretrained(MODEL)
classify

# %%
images = [Image.fromarray(draw_occluded(kind, number=0, seed=1)) for kind in range(4)]
Image.fromarray(np.hstack([np.asarray(image) for image in images]))

# %%
probabilities, names = classify(images)
names

# %% [markdown]
# The three most probable classes of the first image:

# %%
best = probabilities[0].argsort()[::-1][:3]
{classify.names[place]: round(float(probabilities[0, place]), 3) for place in best}

# %% [markdown]
# A whole folder, on the command line: `dfeat predict MODEL photographs/ --out predictions.csv`. A classifier without
# diffusion features also goes to timm: `classify.save_for_timm("exported")`, then
# `timm.create_model("local-dir:exported", pretrained=True)`.
