"""Scripts as CONFIG: which line starts the training, and what its words mean."""

import contextlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.errors import InputError, UnsupportedError, ZeroSizerError
from zero_sizer.findings import Direction
from zero_sizer.job import read as job
from zero_sizer.job.fields import Flags
from zero_sizer.job.readers import shell_words
from zero_sizer.units import GIB

DS = '{"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto"}'
ARGUMENTS = "train.py --model_name_or_path gpt2 --deepspeed ds.json --bf16 --output_dir o"


@pytest.fixture
def read(tmp_path):
    (tmp_path / "ds.json").write_text(DS)

    def read(text, name="run.sh", **flags):
        path = tmp_path / name
        path.write_text(text)
        return job.read(str(path), Flags(**flags))

    return read


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        (f"deepspeed --num_gpus 4 {ARGUMENTS}", (1, 4)),
        (f"deepspeed --num_gpus=4 --num_nodes 2 {ARGUMENTS} && echo done", (2, 4)),
        (f"N=4\ntorchrun --nnodes 2 --nproc_per_node $N {ARGUMENTS}", (2, 4)),
        (f"N=4\ntorchrun --nnodes=1 --nproc-per-node=${{N}} {ARGUMENTS}", (1, 4)),
        (f"export A=2 N=4; echo\ntorchrun --nnodes $A --nproc_per_node $N {ARGUMENTS}", (2, 4)),
        ("A=2\nB=$((A * 4))\naccelerate launch --num_machines $A --num_processes $B " + ARGUMENTS,
         (2, 4)),
        (f"#SBATCH -N 2\n#SBATCH --gpus-per-node=h100:4\nsrun torchrun --nnodes $SLURM_NNODES "
         f"--nproc_per_node $SLURM_GPUS_ON_NODE {ARGUMENTS}", (2, 4)),
        (f"#SBATCH --nodes=2 --ntasks-per-node=4 --gres=gpu:4\nsrun python {ARGUMENTS}", (2, 4)),
        (f"#SBATCH --nodes=2\n#SBATCH --gres=gpu:8\nsrun bash -c 'torchrun --nproc_per_node "
         f"$(nvidia-smi -L | wc -l) --nnodes $SLURM_NNODES {ARGUMENTS}'", (2, 8)),
        (f"if true; then\n  nohup deepspeed --num_gpus 4 {ARGUMENTS} > log 2>&1 &\nfi", (1, 4)),
        (f"cat <<EOF > note\ndeepspeed --num_gpus 9 other.py\nEOF\ndeepspeed --num_gpus 4 "
         f"{ARGUMENTS}", (1, 4)),
        (f"python prepare.py --model_name_or_path nothing\ndeepspeed --num_gpus 4 {ARGUMENTS}",
         (1, 4)),
        (f"L='deepspeed --num_gpus 4'\nC=\"{ARGUMENTS}\"\n$L $C", (1, 4)),
        # argparse knows an option by its beginning: hiyouga/LlamaFactory#3307
        (f"python -m torch.distributed.run --nproc_per_node=4 --nnode=2 {ARGUMENTS}", (2, 4)),
        (f"deepspeed --num_gpu 4 {ARGUMENTS}", (1, 4)),
        (f"mpirun -np 8 -H a:4,b:4 -x NCCL_DEBUG=INFO python {ARGUMENTS}", (2, 4)),
        (f"GPUS=(0 1 2 3)\nARGS=(\n  {ARGUMENTS}  # all of them\n)\nARGS+=(--seed 1)\n"
         "torchrun --nproc_per_node ${#GPUS[@]} \"${ARGS[@]}\"", (1, 4)),
        (f"declare -a L=(deepspeed --num_gpus 4)\n${{L[@]}} {ARGUMENTS}", (1, 4)),
        (f"A='--num_gpus'\nA+=' 4'\ndeepspeed $A {ARGUMENTS}", (1, 4)),
        # sums and commands in one another, as in scripts of Qwen and of 2U1/Qwen-VL-Series-Finetune
        (f"A=2 B=16\nG=$((B / (A * 2)))\ntorchrun --nproc_per_node $G {ARGUMENTS}", (1, 4)),
        (f"A=$(python -c 'print(f(3))')\ndeepspeed --master_port $A --num_gpus 4 "
         f"{ARGUMENTS}", (1, 4)),
        (f"deepspeed --num_gpus 4 --master_port $(f $(g (1)) x) {ARGUMENTS}", (1, 4)),
    ],
)  # fmt: skip
def test_the_launcher_line_is_found(read, text, ranks):
    found = read("#!/bin/bash\n" + text)
    assert found.workload.precision == "bf16"
    assert found.model.name == "gpt2"
    assert (found.cluster.nodes, found.cluster.gpus_per_node) == ranks


def test_lines_of_flags_are_those_of_the_script(read):
    text = "#!/bin/bash\ndeepspeed train.py \\\n  --model_name_or_path gpt2 \\\n  --bf16 \\\n" \
           "  --per_device_train_batch_size 3 \\\n  --deepspeed ds.json\n"  # fmt: skip
    origins = read(text).workload.origins
    assert origins["micro_batch"].endswith("run.sh:5")
    assert origins["precision"].endswith("run.sh:4")


def test_sbatch_says_the_memory_of_a_node(read):
    text = "#!/bin/bash\n#SBATCH --mem={}\ndeepspeed --num_gpus 1 " + ARGUMENTS
    assert read(text.format("64G")).cluster.host_memory == 64 * GIB
    assert read(text.format("65536")).cluster.host_memory == 64 * GIB
    assert read(text.format("0")).cluster.host_memory is None
    assert read(text.format("64G"), host_memory="1TiB").cluster.host_memory == 1024 * GIB


def test_what_only_a_running_shell_knows_is_said(read):
    found = read(f"deepspeed --num_gpus 4 {ARGUMENTS} --per_device_train_batch_size $1 --seed $2")
    assert found.workload.micro_batch == 8  # transformers' default
    assert {(f.code, f.key) for f in found.findings} >= {
        ("variable-unknown", "per_device_train_batch_size")
    }


def test_a_number_sign_within_a_word_begins_no_comment(read):
    """ms-swift's examples name the rows of a dataset so."""
    text = "swift sft --model gpt2 --tuner_type full --dataset a/b#1000 --deepspeed zero2 \\\n" \
           "  --max_length 64 # --max_length 32\n"  # fmt: skip
    found = read(text, gpus_per_node=2)
    assert found.workload.seq_len == 64
    assert found.document.get("zero_optimization.stage") == 2


@pytest.mark.parametrize(
    "line",
    [
        f"torchrun --nnodes $WORLD_SIZE --nproc_per_node 8 --node_rank $RANK {ARGUMENTS}",
        f"accelerate launch --num_machines=$N --num_processes $((8 * N)) {ARGUMENTS}",
        # as in ms-swift's example for PAI-DLC
        "NNODES=$WORLD_SIZE \\\nNPROC_PER_NODE=8 swift sft --model gpt2 --deepspeed zero2",
    ],
)
def test_nodes_that_only_a_running_shell_knows_are_asked_for(read, line):
    """One is counted, and nothing is ruled out by it."""
    found = read(line, gpus_per_node=8)
    assert (found.cluster.nodes, found.cluster.gpus_per_node) == (1, 8)
    (said,) = [f for f in found.findings if f.code == "nodes-unknown"]
    assert (said.direction, said.line, said.key) == (Direction.SAVE, 1, "--nodes")
    found = read(line, gpus_per_node=8, nodes=2)
    assert found.cluster.world_size == 16
    assert "nodes-unknown" not in {f.code for f in found.findings}


def test_nodes_of_the_line_stay_where_a_flag_says_the_gpus(read):
    line = f"torchrun --nnodes 2 --nproc_per_node $(nvidia-smi -L | wc -l) {ARGUMENTS}"
    assert read(line, gpus_per_node=4).cluster.world_size == 8
    with pytest.raises(InputError, match="2 nodes, but not how many GPUs each has"):
        read(line)


def test_a_launchers_file_that_only_a_running_shell_knows_is_named(read):
    """As in the sbatch scripts of alignment-handbook and open-r1."""
    text = 'A="$2"\nL="accelerate launch --config_file recipes/$A.yaml"\n'
    with pytest.raises(
        InputError, match=r"--config_file 'recipes/\$2.yaml' is known only"
    ) as error:
        read(f'{text}srun bash -c "$L {ARGUMENTS}"')
    assert error.value.where.endswith("run.sh:3")


@pytest.mark.parametrize("told", ['"$@"', "$@", "$DS_CONFIG", "${2}"])
def test_a_config_that_only_a_running_shell_knows_is_asked_for(read, told):
    line = f"\ndeepspeed --num_gpus 4 train.py --model_name_or_path gpt2 --bf16 --deepspeed {told}"
    with pytest.raises(InputError, match="known only where the script runs: which DeepSpeed") as e:
        read(line)
    assert e.value.where.endswith("run.sh:2")


@pytest.mark.parametrize("name", ["model_name_or_path", "model_id"])
def test_a_model_that_only_a_running_shell_knows_is_asked_for(read, name):
    line = f"deepspeed --num_gpus 4 train.py --bf16 --deepspeed ds.json --{name} $1 --output_dir o"
    with pytest.raises(InputError, match="known only where the script runs: which model") as error:
        read(line)
    assert error.value.where.endswith("run.sh:1")
    assert read(line, model="gpt2").model.name == "gpt2"


def test_a_default_stands_where_the_script_is_given_no_arguments(read):
    """As in QwenLM/Qwen's finetune_ds.sh."""
    text = 'M="gpt2"\nwhile [[ "$1" != "" ]]; do\n  case $1 in\n    -m )\n      shift\n'
    text += "      M=$1\n      ;;\n  esac\ndone\n"
    text += "deepspeed --num_gpus 4 train.py --model_id $M --bf16 --deepspeed ds.json --do_train"
    assert read(text).model.name == "gpt2"


def test_arguments_may_stand_on_lines_of_a_variable(read):
    """As in Qwen3-VL's scripts: quotes within, no backslash at a line's end."""
    text = 'llm=gpt2\nargs="\n    --deepspeed ds.json\n    --model_name_or_path "${llm}"\n'
    text += '    --bf16\n    --per_device_train_batch_size $((2*2))"\n'
    found = read(f"{text}torchrun --nproc_per_node=4 train.py ${{args}}")
    assert (found.model.name, found.workload.micro_batch) == ("gpt2", 4)
    assert found.workload.precision == "bf16"


def test_a_text_of_several_lines_is_one_argument(read):
    """As the system prompts in ms-swift's examples, with quotes and parentheses."""
    text = """P='Answer (briefly):\n  e.g. "2*(3+4)"; then\n'\nswift sft --model gpt2 """
    text += """--system "$P" --tuner_type full --deepspeed zero2 --max_length 64"""
    found = read(text, gpus_per_node=2)
    assert (found.workload.seq_len, found.document.get("zero_optimization.stage")) == (64, 2)


def test_what_is_added_to_a_variable_counts(read):
    text = "O='--bf16 True'\nO+=' --per_device_train_batch_size 3'\ndeepspeed --num_gpus 4 "
    text += "train.py --model_name_or_path gpt2 --deepspeed ds.json $O"
    assert read(text).workload.micro_batch == 3


def test_words_of_an_array_are_those_of_bash(tmp_path):
    text = 'A=(one \'two words\' "x=$((2+3))"  # three\n  four)\nA+=("f\\"ive")\n'
    line = "printf '%s\\n' \"${A[@]}\" ${#A[@]}"
    done = subprocess.run(["bash", "-c", text + line], capture_output=True, text=True, check=True)
    (command,) = shell_words.commands(text + line, {}, "x")
    assert list(command.words[2:]) == done.stdout.splitlines()


def test_a_file_that_the_line_names_is_read_with_its_overrides(read, tmp_path):
    (tmp_path / "lf.yaml").write_text(
        "model_name_or_path: gpt2\nfinetuning_type: full\ncutoff_len: 512\ndeepspeed: ds.json\n"
    )
    found = read("FORCE_TORCHRUN=1 NPROC_PER_NODE=4 llamafactory-cli train lf.yaml bf16=true")
    assert (found.workload.seq_len, found.workload.precision) == (512, "bf16")
    assert found.cluster.gpus_per_node == 4
    assert found.workload.origins["seq_len"].endswith("lf.yaml:3")
    (tmp_path / "ax.yaml").write_text("base_model: gpt2\nsequence_len: 256\ndeepspeed: ds.json\n")
    found = read("accelerate launch --num_processes 2 -m axolotl.cli.train ax.yaml")
    assert (found.workload.seq_len, found.cluster.gpus_per_node) == (256, 2)
    assert read("axolotl train ax.yaml").said.tool == "axolotl"
    (tmp_path / "sft.yaml").write_text("model_name_or_path: gpt2\nmax_length: 99\n")
    found = read("trl sft --config sft.yaml --deepspeed ds.json --max_length 77")
    assert (found.workload.seq_len, found.said.tool) == (77, "trl")


def test_trl_dpo_is_more_than_fine_tuning(read):
    found = read("trl dpo --model_name_or_path gpt2 --deepspeed ds.json")
    assert "tool-option-not-modelled" in {f.code for f in found.findings}


@pytest.mark.parametrize(
    ("arguments", "is_said"),
    [
        ("scripts/run_dpo.py --model_name_or_path gpt2 --deepspeed ds.json --bf16", True),
        ("train_ppo.py --model_name_or_path gpt2 --deepspeed ds.json --bf16", True),
        ("llava/train/train_mem.py --model_name_or_path gpt2 --deepspeed ds.json "
         "--vision_tower openai/clip-vit-large-patch14-336", True),  # haotian-liu/LLaVA#528
        ("finetune.py --model_name_or_path gpt2 --deepspeed ds.json --bf16", False),
    ],
)  # fmt: skip
def test_what_a_script_keeps_beside_the_model_is_said(read, arguments, is_said):
    found = {f.code for f in read(f"deepspeed --num_gpus 8 {arguments}").findings}
    assert ("tool-option-not-modelled" in found) is is_said


def test_the_precision_of_accelerate_counts_where_the_script_names_none(read):
    """transformers 5.23 training_args.py; allenai/open-instruct's scripts say it so."""
    line = (
        "accelerate launch --mixed_precision {} --use_deepspeed --num_processes 8 "
        "--deepspeed_config_file ds.json train.py --model_name_or_path gpt2 --output_dir o {}"
    )
    assert read(line.format("bf16", "")).workload.precision == "bf16"
    assert read(line.format("no", "")).workload.precision == "fp32"
    assert read(line.format("bf16", "--fp16")).workload.precision == "fp16"


@pytest.mark.parametrize(
    ("line", "tool"),
    [
        ("deepspeed --module openrlhf.cli.train_dpo --zero_stage 3 --micro_train_batch_size 1 "
         "--pretrain codellama/CodeLlama-34b-hf", "OpenRLHF"),  # OpenRLHF#193
        ("deepspeed main.py --data_split 0,10,0 --lora_dim 8 --zero_stage 3 --deepspeed "
         "--model_name_or_path bigscience/bloom-3b", "DeepSpeed-Chat"),  # DeepSpeedExamples#665
    ],
)  # fmt: skip
def test_scripts_that_make_their_own_config_are_refused_by_name(read, line, tool):
    with pytest.raises(UnsupportedError, match=f"{tool}.*--zero_stage"):
        read(line)


def test_options_of_accelerate_win_over_its_file(read, tmp_path):
    (tmp_path / "acc.yaml").write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 8\nmixed_precision: bf16\n"
        "deepspeed_config: {zero_stage: 2, gradient_accumulation_steps: 2}\n"
    )
    arguments = "train.py --model_name_or_path gpt2 --bf16"
    found = read(f"accelerate launch --config_file acc.yaml {arguments}")
    assert found.document.get("zero_optimization.stage") == 2
    assert found.document.where("zero_optimization.stage").endswith("acc.yaml:4")
    found = read(f"accelerate launch --config_file acc.yaml --zero_stage 3 {arguments}")
    assert found.document.get("zero_optimization.stage") == 3
    assert found.document.get("gradient_accumulation_steps") == 2
    found = read(f"accelerate launch --use_deepspeed --zero_stage 3 --num_processes 2 {arguments}")
    assert found.document.get("zero_optimization.stage") == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo hello", "no line in this script"),
        ("", "no line in this script"),
        ("deepspeed --nonsense 3 train.py", "no option"),
        ("deepspeed --num_gpus 0 train.py", "whole number"),
        ("A=x\n" + "A=$A$A\n" * 40 + "deepspeed train.py", "grow without end"),
        ("deepspeed --num_gpus 4 train.py --other 3", "names no DeepSpeed config"),
        ("deepspeed train.py --deepspeed no.json --bf16", "no file"),
        ("x\n" * 20_001, "not a script"),
        ("deepspeed train.py 'never closed", "no line in this script"),
    ],
)
def test_what_starts_nothing_is_one_line(read, text, words):
    with pytest.raises(InputError, match=words) as caught:
        read(text, model="gpt2")
    assert "\n" not in str(caught.value)


WORDS = st.lists(
    st.sampled_from(
        [
            "deepspeed",
            "train.py",
            "--a",
            "'b c'",
            '"d $X"',
            "$X",
            "${Y:-z}",
            "\\\n",
            "\n",
            "#",
            ";",
            "a#9",
            "'#b' c",
            '"\\"#"',
            "\\#d",
            ";#e",
            "#f",
        ]
    ),
    max_size=12,
).map(" ".join)


@given(text=WORDS)
def test_words_are_those_of_bash(text):
    """Of one command after two assignments, where bash itself reads the text without an error."""
    script = f"X=1\nY=two\nshow {text}"
    done = subprocess.run(
        ["bash", "-c", f"show() {{ printf '%s\\0' \"$@\"; exit; }}\n{script}"],
        capture_output=True,
        check=False,
        timeout=20,
    )
    found = list(shell_words.commands(script, {}, "x"))
    if done.returncode == 0 and not done.stderr:
        ours = next(c.words[1:] for c in found if c.words[0] == "show")
        expected = done.stdout.decode().split("\0")[:-1]
        assert list(ours) == [word for word in expected if word] or not expected


@pytest.mark.slow
@given(text=st.text(alphabet="abc$(){}'\"\\\n#;&|<>=-` 12SBATCH", max_size=60))
def test_no_script_ends_in_a_traceback(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.sh"
    path.write_text(f"{text}\ndeepspeed train.py --bf16 {text}")
    with contextlib.suppress(ZeroSizerError):
        job.read(str(path), Flags(model="gpt2"))


# As in the repositories of ms-swift, open-instruct and DeepSpeedExamples.
@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        (f"python submit.py --gpus 8 -- torchrun --nproc_per_node 8 {ARGUMENTS}", 8),
        (f'run_cmd="torchrun --nproc_per_node 4 {ARGUMENTS}"\necho $run_cmd\neval ${{run_cmd}}', 4),
        (f"uv run --extra train torchrun --nproc_per_node 2 {ARGUMENTS}", 2),
        (f"n=2 m=$n\ntorchrun --nproc_per_node $m {ARGUMENTS}", 2),
        (f"torchrun --nproc_per_node 8 {ARGUMENTS}\nsrun trl vllm-serve --model gpt2 &", 8),
    ],
)
def test_lines_that_repositories_have(read, text, ranks):
    found = read(text)
    assert (found.model.name, found.cluster.world_size) == ("gpt2", ranks)


def test_files_are_found_from_the_top_of_a_repository(tmp_path):
    """The script lies deep inside, and names files as seen from where it is started."""
    deep = tmp_path / "examples" / "multi-node"
    deep.mkdir(parents=True)
    (tmp_path / "examples" / "ds.json").write_text(DS)
    (deep / "hosts.txt").write_text("a slots=4\nb slots=4\n")
    words = ARGUMENTS.replace("ds.json", "examples/ds.json")
    text = f"deepspeed --hostfile=./examples/multi-node/hosts.txt {words}"
    (deep / "train.sh").write_text(text)
    found = job.read(str(deep / "train.sh"), Flags())
    assert (found.cluster.world_size, found.document.get("zero_optimization.stage")) == (8, 2)
    (deep / "train.sh").write_text(text.replace("hosts.txt", "none.txt"))
    with pytest.raises(InputError, match=r"none\.txt"):
        job.read(str(deep / "train.sh"), Flags())


def test_a_tool_that_is_started_by_its_path_keeps_its_presets(read):
    said = "--model gpt2 --tuner_type full --deepspeed zero2 --max_length 64"
    found = read(f"torchrun --nproc_per_node 4 swift/cli/sft.py {said}")
    assert found.document.get("zero_optimization.stage") == 2
    assert found.workload.seq_len == 64


@pytest.mark.parametrize("switch", ["--deepspeed", "--deepspeed --zero_stage 3"])
def test_a_program_that_makes_its_own_config_is_run_not_read(read, switch):
    """DeepSpeed-Chat: --zero_stage and --offload, and a config made of them in Python."""
    with pytest.raises(InputError, match="makes its DeepSpeed config itself") as error:
        read(f"deepspeed main.py --model_name_or_path gpt2 {switch}")
    assert "dryrun" in error.value.remedy
