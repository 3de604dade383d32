"""Loaders of transformers 4.51 to 4.57, which is not what is installed here: their signature."""

import re

import torch

from zero_sizer.simulator.patches import pretrained_4


def _loader_of_4(
    cls,
    model,
    state_dict,
    checkpoint_files,
    pretrained_model_name_or_path,
    ignore_mismatched_sizes=False,
    device_map=None,
    keep_in_fp32_regex=None,
):
    """As ``PreTrainedModel._load_pretrained_model`` of transformers 4.51.3, shortened."""


def _loader_of_5(model, state_dict, checkpoint_files, load_config, expected_keys=None):
    """As that of transformers 5.23."""


def test_the_two_loaders_are_told_apart():
    assert pretrained_4.is_this(_loader_of_4)
    assert not pretrained_4.is_this(_loader_of_5)


def test_every_tensor_has_the_place_of_the_longest_name_before_it():
    model, asked = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)), []
    load = pretrained_4.loader(lambda *given: asked.append(given))
    options = {"device_map": {"": 0, "1": "cpu"}, "keep_in_fp32_regex": re.compile("norm")}
    answer = load(model, None, ["no-weights.safetensors"], "folder", **options)
    assert answer == (model, [], [], [], None, [])
    ((_, places, dtypes),) = asked
    assert places == {"0.weight": 0, "0.bias": 0, "1.weight": "cpu", "1.bias": "cpu"}
    assert dtypes == {"norm": torch.float32}


def test_a_file_that_is_not_there_has_an_empty_header():
    open_file = pretrained_4.opener(lambda name, **options: name, "none.safetensors")
    with open_file("none.safetensors", framework="pt") as file:
        assert (file.metadata(), file.keys()) == ({"format": "pt"}, [])
    assert open_file("real.safetensors") == "real.safetensors"
