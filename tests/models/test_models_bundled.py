"""The bundled models: known counts, the layouts' own answer, and transformers'."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zero_sizer import models
from zero_sizer.errors import InputError
from zero_sizer.models.feeds import feed_of
from zero_sizer.models.layouts.families import FAMILIES
from zero_sizer.models.sources.bundled import load_bundled, module_rows, read_bundled
from zero_sizer.models.sources.hf_config import load_hf_config
from zero_sizer.models.sources.hub import known_names

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
# Published with the weights (safetensors metadata or model card on the Hugging Face hub).
# DeepSeek-V3's 671,026,419,200 counts the router's 58 x 256 correction biases, buffers here.
PUBLISHED = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-8b": 8_190_735_360,
    "qwen3-30b-a3b": 30_532_122_624,
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "t5-3b": 2_851_598_336,
    "bert-large": 335_174_458,
    "deepseek-v3": 671_026_419_200 - 58 * 256,
    "phi-4": 14_659_507_200,
    "gemma-2-9b": 9_241_705_984,
}


def sources():
    """``SOURCES`` of the generator, which needs neither torch nor transformers."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module("model_sources").SOURCES
    finally:
        sys.path.remove(str(SCRIPTS))


def test_what_is_bundled_is_what_the_generator_lists():
    assert set(models.bundled_names()) == set(sources())
    assert set(PUBLISHED) <= set(models.bundled_names())


@pytest.mark.parametrize("name", models.bundled_names())
def test_counts_are_the_published_ones(name):
    spec = models.load(name)
    assert spec.num_params == read_bundled(name)["num_params"]
    assert sources()[name].params in (None, spec.num_params)
    assert spec.num_params == PUBLISHED.get(name, spec.num_params)
    tables = (t for t in spec.parameters if t.name == "model.encoder.embed_positions.weight")
    assert spec.num_trainable == spec.num_params - sum(table.numel for table in tables)  # Whisper's
    assert len({tensor.name for tensor in spec.parameters}) == len(spec.parameters)


def _read_from_config(name, folder):
    """The model as a user's config.json gives it, and as it is bundled."""
    source = sources()[name]
    is_denoiser = source.family == source.head  # diffusers' configs name their class alone
    own = {"_class_name": source.head} if is_denoiser else {"model_type": source.family}
    own |= {} if is_denoiser else {"architectures": [source.head]}
    (folder / "config.json").write_text(json.dumps({**own, **source.config}))
    return load_hf_config(folder / "config.json"), models.load(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava-1.5-7b", "qwen2-vl-2b", "whisper-tiny", "sd-1.5-unet"])
def test_a_config_json_and_its_name_are_one_model(name, tmp_path):
    for package in ("transformers", "diffusers"):
        pytest.importorskip(package)
    by_file, by_name = _read_from_config(name, tmp_path)
    assert by_file.parameters == by_name.parameters
    assert by_file.buffers == by_name.buffers
    assert by_file.arch == by_name.arch
    assert by_file.shared == by_name.shared
    assert feed_of(by_file) == feed_of(by_name)


OURS = [name for name in models.bundled_names() if load_bundled(name).arch.family in FAMILIES]


@pytest.mark.parametrize("name", OURS)
def test_the_layouts_give_the_same_tensors(name, tmp_path):
    by_layout, by_transformers = _read_from_config(name, tmp_path)
    assert by_layout.parameters == by_transformers.parameters
    assert by_layout.buffers == by_transformers.buffers
    assert by_layout.arch == by_transformers.arch
    for key, value in by_transformers.hf_config.items():
        assert by_layout.hf_config[key] == value, key


@pytest.mark.slow
def test_models_and_defaults_are_what_transformers_gives_now():
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    for script in ("generate_models.py", "generate_config_defaults.py"):
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / script), "--check"],
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr[-2000:]}"


@pytest.mark.parametrize("name", ["llama-3-8b", "t5-3b", "bert-large", "gpt2"])
def test_tied_tensors_count_once_under_the_first_name(name):
    rows = list(module_rows(read_bundled(name)))
    own = {tensor.name for tensor in models.load(name).parameters}
    tied = {
        f"{row.name}.{key}": first
        for row in rows
        for key, first in row.parameters.items()
        if isinstance(first, str)
    }
    assert set(tied.values()) <= own
    assert not own & set(tied)
    expected = {
        "llama-3-8b": set(),
        "gpt2": {"lm_head.weight"},
        "t5-3b": {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"},
        "bert-large": {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"},
    }
    assert set(tied) == expected[name]


def test_auto_values_find_the_hidden_size_under_the_standard_name():
    assert models.load("gpt2").hf_config["hidden_size"] == 768
    assert models.load("t5-3b").hf_config["hidden_size"] == 1024


@pytest.mark.parametrize("name", ["llama-3-405b", "deepseek-v3"])
def test_the_largest_models_load_in_milliseconds(name):
    def once() -> float:
        start = time.process_time()
        load_bundled(name)
        return time.process_time() - start

    assert min(once() for _ in range(5)) < 0.010


def test_describe_all_has_a_row_for_each():
    rows = {row.name: row for row in models.describe_all()}
    assert tuple(rows) == known_names()
    assert rows["yi-34b"].params == 34_388_917_248
    assert rows["llama-2-7b"] == models.ModelRow(
        name="llama-2-7b",
        params=6_738_415_616,
        layers=32,
        hidden=4096,
        source="meta-llama/Llama-2-7b-hf config.json",
    )
    assert rows["t5-3b"].layers == 48  # 24 encode, 24 decode


def test_a_repository_on_the_hub_names_its_bundled_model():
    assert models.load("meta-llama/Llama-2-7b-hf").name == "llama-2-7b"
    assert models.load("LLAMA-2-7B").name == "llama-2-7b"


@pytest.mark.parametrize("name", ["lama-2-7b", "llama2-7b", "qwen2.5-8b", "nonsense", "", "a\0b"])
def test_unknown_names_are_answered_with_close_ones(name):
    with pytest.raises(InputError) as error:
        models.load(name)
    assert "zero-sizer models" in error.value.remedy
    if name not in ("nonsense", "", "a\0b"):
        assert "did you mean" in error.value.remedy


def test_bundled_models_and_configs_import_nothing_heavy(tmp_path):
    config = {"model_type": "llama", **sources()["llama-2-7b"].config}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code = (
        "import sys; from zero_sizer import models\n"
        f"[models.load(name) for name in (*models.bundled_names(), {str(tmp_path)!r}, "
        "'params=7e9,layers=32,hidden=4096')]\n"
        "heavy = {'torch', 'transformers', 'deepspeed', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
