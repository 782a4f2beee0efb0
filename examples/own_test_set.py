# %% [markdown]
# # My own test set
#
# A folder for each class makes a test set. This file runs once `make demo` has: `python examples/own_test_set.py`;
# VS Code, PyCharm, Spyder, and Jupyter with jupytext show it as a notebook.

# %%
from pathlib import Path

from PIL import Image

from dfeat import Classifier
from dfeat.demo.dresses import WNIDS
from dfeat.demo.worlds import draw_occluded

# %% [markdown]
# Folders are named by wnid, or by any ImageNet name of the class: `my_set/n02129604/1.png`, `my_set/tiger/1.png`. Here
# drawings behind occluders stand in for photographs, five of each of four classes.

# %%
root = Path("data/my_set")
for kind in range(4):
    (root / WNIDS[kind]).mkdir(parents=True, exist_ok=True)
    for number in range(5):
        Image.fromarray(draw_occluded(kind, number, seed=7)).save(root / WNIDS[kind] / f"{number}.png")
sorted(path.name for path in root.iterdir())

# %% [markdown]
# Two lines of configuration put the set into Table 2 of a run, beside the others. Nothing is trained again:
#
#     snakemake table2 --cores 8 --configfile config.yaml config/demo.yaml my_set.yaml

# %%
Path("my_set.yaml").write_text("data: {evaluation: {my_set: {root: data/my_set}}}\n")
print(Path("my_set.yaml").read_text())

# %% [markdown]
# One model alone needs no run. Its accuracy on the set, with what 20 images can say: about 22 points to either side.

# %%
classify = Classifier.from_pretrained("results/demo/training/none/convnext/seed0")
wnids = [info.wnid for info in classify.classes]
files = sorted(root.rglob("*.png"))
probabilities, names = classify(files)
right = [wnids[best] == file.parent.name for best, file in zip(probabilities.argmax(1), files, strict=True)]
f"{sum(right)} of {len(right)} right"
