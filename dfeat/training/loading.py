"""Load the weights of a backbone as timm does, and refuse what timm would leave random without a word.

What enters: a file that timm reads: .safetensors, a pickle of tensors, bare or wrapped ("state_dict", "model", EMA), with
the prefixes of DDP and torch.compile. What leaves: timm's own conversion of it to the names and sizes of the model
(`checkpoint_filter_fn`: former names, resized positions), and an error where a weight is missing or does not fit.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from torch import Tensor, nn

from dfeat.errors import UserError
from dfeat.shortage import pass_on
from dfeat.training.weights import SUFFIXES

State = dict[str, Tensor]
_OF_A_HEAD: Final = ("head.", "head_dist.", "classifier.", "fc.", "last_linear.")
"""Starts of names of a classification head, which the file may have where the model has none."""
_BROKEN: Final = (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError, AssertionError)


@contextmanager
def weights_checked(path: Path) -> Iterator[None]:
    """Inside, timm loads the weights of `path` into a model that it creates only if they are all of its weights.

    UserError where they are not, or the file cannot be read.
    """
    from timm.models import _builder

    load = _builder.load_pretrained

    def checked(model: nn.Module, pretrained_cfg: dict[str, Any], filter_fn: Any = None, **options: Any) -> None:
        cfg = {**pretrained_cfg, "state_dict": _read(path)}

        def fitting(state: State, _model: nn.Module) -> State:
            return _fitting(_converted(state, model, filter_fn, path), model, cfg, path)

        load(model, pretrained_cfg=cfg, filter_fn=fitting, **options)

    # timm hands a model's own conversion of weights to this function and keeps it nowhere else.
    with patch.object(_builder, "load_pretrained", checked):
        yield


def _read(path: Path) -> State:
    """The named tensors in a file, of a pickle nothing else. Raises UserError if there are none."""
    from timm.models import load_state_dict

    if not path.name.endswith(SUFFIXES):
        raise UserError(
            f"{path}: weights must be a file of one of the kinds {', '.join(SUFFIXES)}; load others with timm and save the "
            "state_dict as .safetensors"
        )
    if not path.is_file():
        raise UserError(f"{path} is missing; it should hold the backbone's weights")
    with _readable(path):
        state = load_state_dict(str(path), weights_only=True)
    if not state or not all(isinstance(one, Tensor) for one in state.values()):
        raise UserError(f"{path} is not a file of named tensors; give the model's state_dict")
    return state


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Inside, a file that is damaged, or that holds other things than named tensors, raises UserError."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, EOFError, OSError, pickle.UnpicklingError, *_BROKEN) as error:
        pass_on(error, str(path))
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
            raise UserError(
                f"{path} holds more than tensors, so it could run code and is not opened; save its state_dict alone, as "
                ".safetensors, where you trust it"
            ) from None
        why = " ".join(str(error).split())
        raise UserError(f"{path} is not a readable file of named tensors ({why}); get it again") from None


def _converted(state: State, model: nn.Module, convert: Callable[..., State] | None, path: Path) -> State:
    """The weights by the model's names and in its sizes, as far as timm can. Raises UserError for foreign ones."""
    if convert is None:
        return state
    try:
        return convert(state, model)
    except TypeError:
        return convert(state)
    except _BROKEN as error:
        raise UserError(
            f"{path} does not fit the backbone: timm cannot convert it ({type(error).__name__}: {error}); check "
            "training.backbones name and kwargs"
        ) from None


def _fitting(state: State, model: nn.Module, cfg: dict[str, Any], path: Path) -> State:
    """Of converted weights, those that the model has, its head among them. Raises UserError unless that is all of them.

    `cfg` is timm's configuration of the weights; how many classes their head has is put right there.
    """
    wanted = model.state_dict()
    passing = {name for name, _ in model.named_buffers()} - set(wanted)  # computed anew for each model
    names = cfg.get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    cfg["num_classes"] = next(
        (len(state[f"{name}.weight"]) - cfg.get("label_offset", 0) for name in names if f"{name}.weight" in state), 0
    )
    head = {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    rows = {len(wanted[f"{name}.weight"]) for name in names if f"{name}.weight" in wanted}
    # timm cuts the background class off after this.
    cut = head if cfg.get("label_offset", 0) and rows == {cfg["num_classes"]} else set()
    unknown = [key for key in state if key not in {*wanted, *passing, *head} and not key.startswith(_OF_A_HEAD)]
    missing = [key for key in wanted if key not in state]
    shapes = [key for key in wanted if key in state and key not in cut and state[key].shape != wanted[key].shape]
    if unknown or missing or shapes:
        raise UserError(
            f"{path} does not fit the backbone: {len(missing)} keys missing, {len(unknown)} unknown, {len(shapes)} of "
            f"another shape (first: {(missing + unknown + shapes)[0]}); check training.backbones name and kwargs"
        )
    return {key: state[key] for key in wanted}
