"""Scripts that ask something of a GPU beside training, by what they ask."""

STEP = """
import deepspeed, torch
net = torch.nn.Linear(1024, 1024)
engine, *_ = deepspeed.initialize(model=net, model_parameters=net.parameters(), config={
    "train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": ZERO},
    "bf16": {"enabled": True}, "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}})
for step in range(3):
    loss = engine(torch.ones(1, 1024, device=engine.device, dtype=torch.bfloat16)).float().mean()
    engine.backward(loss)
    engine.step()
"""
TRAINS = STEP.replace("ZERO", "2")
# Name -> what stands before (or in) a loop that trains; each asserts what a real run would find.
FAULTS = {
    "a loss is formatted, compared and added": STEP.replace("ZERO", "2")
    + """
    assert f"{loss:.4f}" == "1.0000" and f"{loss:>8}".strip()
    assert torch.isfinite(loss) and not torch.isnan(loss) and loss < float("inf") and loss > 0
    assert not loss > 5 and min(loss, 7.0) == 1.0 and (loss * 2 + 1).item() == 1.0
""",
    "values of the script's own survive the GPU and collectives": """
import deepspeed, torch, torch.distributed as dist
deepspeed.init_distributed()
flag = torch.ByteTensor([1]).to("cuda")
dist.all_reduce(flag, op=dist.ReduceOp.MAX)
assert flag.item() == 1
count = torch.tensor([3, 5], device="cuda")
dist.all_reduce(count)
assert count.tolist() == [24, 40] and int(count.sum()) == 64
parts = [torch.zeros(2, dtype=torch.long, device="cuda") for _ in range(8)]
dist.all_gather(parts, torch.tensor([1, 2], device="cuda"))
assert torch.cat(parts).max().item() == 2 and parts[7].cpu().numpy().tolist() == [1, 2]
table = torch.zeros(4, device="cuda")
table[1:3] = 7
assert table.tolist() == [0, 7, 7, 0]
table[0:1].copy_(torch.rand(1, device="cuda"))
assert table.tolist() == [1.0] * 4  # unknown from here on, as every other tensor
assert torch.arange(6, device="cuda").view(2, 3)[1].tolist() == [3, 4, 5]
"""
    + TRAINS,
    "selections": """
import torch
known = torch.tensor([0.0, 1.0, 2.0], device="cuda")
assert known.nonzero().shape == (2, 1) and torch.where(known > 1)[0].tolist() == [2]
unknown = torch.rand(2, 5, device="cuda")
assert unknown.nonzero().shape == (10, 2) and torch.where(unknown > 0)[1].shape == (10,)
assert unknown[unknown > 0].shape == (10,)
"""
    + TRAINS,
    "the device is cuda": """
import torch
x = torch.ones(4, device="cuda")
assert x.device.type == "cuda" and x.device == torch.device("cuda", 0) and str(x.device) == "cuda:0"
assert x.is_cuda and x.get_device() == 0 and x.type() == "torch.cuda.FloatTensor"
assert (x + 1).view(2, 2).device.type == "cuda" and x.cpu().device.type == "cpu"
assert torch.zeros(2, device=x.device).device == x.device
with torch.autocast(device_type=x.device.type, dtype=torch.bfloat16):
    assert (x.view(2, 2) @ x.view(2, 2)).dtype == torch.bfloat16
"""
    + TRAINS
    + """
    assert engine.device.type == "cuda" and next(engine.parameters()).device == engine.device
""",
    "memory statistics and properties": """
import torch
x = torch.ones(1 << 20, device="cuda")
stats = torch.cuda.memory_stats()
assert stats["allocated_bytes.all.current"] == torch.cuda.memory_allocated() == 4 << 20
assert stats["num_alloc_retries"] == stats["num_ooms"] == 0
assert {"active_bytes.all.peak", "inactive_split_bytes.all.current"} <= set(stats)
gpu = torch.cuda.get_device_properties(0)
assert (gpu.warp_size, gpu.major, gpu.multi_processor_count) == (32, 8, 108)
assert torch.cuda.get_device_capability() == (8, 0)
"""
    + TRAINS,
    "a parameter is rebuilt by its class": """
import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
with init_empty_weights():
    layer = torch.nn.Linear(4, 4)
set_module_tensor_to_device(layer, "weight", "cpu", value=torch.ones(4, 4))
assert layer.weight.sum().item() == 16 and isinstance(layer.weight, torch.nn.Parameter)
copy = type(layer.weight)(layer.weight.data, requires_grad=False)
assert isinstance(copy, torch.nn.Parameter) and not copy.requires_grad
"""
    + TRAINS,
    # accelerate hands on whatever hangs on the parameter; transformers 4 builds every model so
    "a known parameter is rebuilt with all that hangs on it": """
import torch
from accelerate import init_empty_weights
with init_empty_weights():
    norm = torch.nn.Module()
    norm.weight = torch.nn.Parameter(torch.ones(8))
assert norm.weight.device.type == "meta" and norm.weight.requires_grad
"""
    + TRAINS,
    "tf32 is asked for": """
import torch
from transformers import TrainingArguments
assert int(torch.version.cuda.split(".")[0]) >= 11
TrainingArguments(output_dir="out", tf32=True, report_to="none")
"""
    + TRAINS,
    "torch's compiler is imported whole": """
import torch._dynamo.utils, torch._dynamo.device_interface
"""
    + TRAINS,
    # DeepSpeed lists passes of its own compiler in every engine on "cuda"
    "torch's compiler is imported by whoever asks for it": TRAINS
    + """
import sys
assert "torch._inductor" not in sys.modules
""",
    "distributions check no values": """
import torch
zero, one = torch.zeros(1, device="cuda"), torch.ones(1, device="cuda")
gumbel = torch.distributions.gumbel.Gumbel(zero, one)
assert gumbel.rsample((4,)).shape == (4, 1)
x = torch.rand(3, device="cuda")
torch.distributions.Normal(x, x).log_prob(x)
"""
    + TRAINS,
    "what is saved is loaded, and lies nowhere else": """
import io, os, torch
os.makedirs("cache", exist_ok=True)
layer = torch.nn.Linear(4, 2)
torch.save({"rows": [1, 2], "flag": torch.tensor([5]), "state": layer.state_dict()}, "cache/a.pt")
assert os.path.isfile("cache/a.pt") and os.listdir("cache") == []
found = torch.load("cache/a.pt", map_location="cuda", weights_only=False)
assert found["rows"] == [1, 2] and found["flag"].item() == 5
assert found["state"]["weight"].shape == (2, 4) and found["state"]["weight"].is_cuda
layer.load_state_dict(found["state"])
buffer = io.BytesIO()
torch.save(layer.state_dict(), buffer)
buffer.seek(0)
assert set(torch.load(buffer)) == {"weight", "bias"}
"""
    + TRAINS,
    "a file that is there is loaded": """
import torch
assert torch.load("real.pt").shape == (3, 5)
"""
    + TRAINS,
    "safetensors by their headers": """
import safetensors, safetensors.torch, torch
found = safetensors.torch.load_file("w.safetensors", device="cuda")
assert found["a"].shape == (7, 3) and found["a"].dtype == torch.bfloat16 and found["a"].is_cuda
with safetensors.safe_open("w.safetensors", framework="pt", device="cpu") as file:
    assert list(file.keys()) == ["a"] and file.metadata() == {"format": "pt"}
    assert file.get_slice("a")[:2].shape == (2, 3)
"""
    + TRAINS,
    "from_pretrained takes every argument": """
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM, CLIPTextModel
changed = {"num_hidden_layers": 1, "use_cache": False}
model = LlamaForCausalLM.from_pretrained("model", dtype=torch.float16, **changed)
assert model.name_or_path == model.config._name_or_path == "model"
assert (len(model.model.layers), model.config.use_cache, model.dtype) == (1, False, torch.float16)
assert not model.training and model.device.type == "cpu"
inner = CLIPTextModel.from_pretrained("diffusion", subfolder="text_encoder")
assert inner.config.hidden_size == 32
asked = {"output_loading_info": True, "device_map": {"": 0}}
model, info = AutoModelForCausalLM.from_pretrained("model", **asked)
assert not info["missing_keys"] and model.device.type == "cuda" and model.dtype == torch.bfloat16
assert model.lm_head.weight.numel() == model.get_input_embeddings().weight.numel()
auto = AutoModelForCausalLM.from_pretrained("model", device_map="auto", torch_dtype="auto")
assert auto.device.type == "cuda" and auto.num_parameters() == model.num_parameters()
"""
    + TRAINS,
    "a base in 4 bits under LoRA": """
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                         bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("model", quantization_config=nf4)
layer = model.model.layers[0].mlp.up_proj
# Two weights a byte; the head stays as it is.
assert layer.weight.numel() == 64 * 160 // 2 and layer.weight.is_cuda
assert model.lm_head.weight.dtype == torch.bfloat16
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
import deepspeed
adapters = [p for p in model.parameters() if p.requires_grad]
engine, *_ = deepspeed.initialize(model=model, model_parameters=adapters, config={
    "train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2},
    "bf16": {"enabled": True}, "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}})
for step in range(3):
    ids = torch.zeros(1, 16, dtype=torch.long, device="cuda")
    engine.backward(engine(input_ids=ids, labels=ids).loss)
    engine.step()
""",
    # peft's recipe of QLoRA at stage 3: packed weights of a dtype that ZeRO partitions
    "a base in 4 bits stored as bf16 at stage 3": """
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16,
                         bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("model", quantization_config=nf4)
layer = model.model.layers[0].mlp.up_proj
model = prepare_model_for_kbit_training(model)  # casts all but what bitsandbytes packed
assert layer.weight.dtype == torch.bfloat16 and model.model.norm.weight.dtype == torch.float32
model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
for parameter in model.parameters():
    if parameter.dtype == torch.float32:
        parameter.data = parameter.data.to(torch.bfloat16)
import deepspeed
adapters = [p for p in model.parameters() if p.requires_grad]
engine, *_ = deepspeed.initialize(model=model, model_parameters=adapters, config={
    "train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True},
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}})
# Four weights a number; an eighth on each of 8 ranks.
assert layer.weight.ds_numel == 64 * 160 // 4
assert layer.weight.ds_tensor.numel() == 64 * 160 // 4 // 8
assert layer.weight.ds_tensor.dtype == torch.bfloat16
for step in range(3):
    ids = torch.zeros(1, 16, dtype=torch.long, device="cuda")
    engine.backward(engine(input_ids=ids, labels=ids).loss)
    engine.step()
""",
    "states leave the GPU and come back": STEP.replace("ZERO", "3")
    + """
    before = torch.cuda.memory_allocated()
    for _ in range(2):
        engine.offload_states()
        assert torch.cuda.memory_allocated() < 10_000 + 2 * 8_519_680  # cuBLAS keeps its workspaces
        engine.reload_states()
        assert abs(torch.cuda.memory_allocated() - before) < 20_000
""",
    "hooks stay with a parameter that moves": """
ran = []
def note(name):
    return lambda *of: ran.append(name)
import torch
net = torch.nn.Linear(1024, 1024)
net.weight.register_hook(note("hook"))
net.bias.register_post_accumulate_grad_hook(note("accumulated"))
net.cuda()
net(torch.ones(1, 1024, device="cuda")).sum().backward()
assert sorted(ran) == ["accumulated", "hook"], ran
"""
    + TRAINS,
    "a module's own parameters, tied, borrowed or none, are DeepSpeed's": """
import torch
from deepspeed.runtime.zero import partition_parameters, partitioned_param_coordinator as own
net = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4))
net[0].again = net[0].weight
for module in net.modules():
    partition_parameters._init_external_params(module)
net[0]._external_params[0] = net[1].weight
for module in net.modules():
    for recurse in (False, True):
        expected = [id(param) for _, param in own.get_all_parameters(module, recurse)]
        assert [id(param) for param in own.iter_params(module, recurse)] == expected
assert len(list(own.iter_params(net[0]))) == 2
"""
    + TRAINS,
    "a short run says so": TRAINS.replace("range(3)", "range(1)"),
    # What stops a run names the line of the script.
    "E own error": """
def deep():
    raise KeyError("x")
try:
    deep()
except KeyError as error:
    raise RuntimeError("could not do it") from error
""",
    # LLaVA's projector is built outside zero.Init, in fp32; DeepSpeed 0.19 asserts one dtype
    "E silent assertion": """
import deepspeed, torch
ZERO = {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True},
        "zero_optimization": {"stage": 3}, "optimizer": {"type": "AdamW"}}
net = torch.nn.Sequential()
with deepspeed.zero.Init(config_dict_or_path=ZERO):
    net.append(torch.nn.Linear(8, 8))
net.append(torch.nn.Linear(8, 8))
deepspeed.initialize(model=net, model_parameters=net.parameters(), config=ZERO)
""",
    "E twice": """
import deepspeed, torch
net = torch.nn.Linear(8, 8)
twice = torch.optim.AdamW([net.weight, net.weight])
deepspeed.initialize(model=net, optimizer=twice, config={"train_micro_batch_size_per_gpu": 1})
""",
    "E unknown argument": TRAINS.replace('"lr": 1e-4', '"foo": 1'),
    "E too long": """
import torch
torch.nn.Embedding(16, 4).cuda()(torch.arange(32, device="cuda"))
""",
    "E in backward": """
import torch
def refuse(grad):
    raise ValueError("not this gradient")
weight = torch.ones(4, device="cuda", requires_grad=True)
weight.register_hook(refuse)
weight.sum().backward()
""",
    "E process of its own": TRAINS.replace('"stage": 2', '"stage": 2, **ZENFLOW').replace(
        "import deepspeed",
        "ZENFLOW = {'offload_optimizer': {'device': 'cpu'}, 'zenflow': {'topk_ratio': 0.1, "
        "'update_interval': 2, 'full_warm_up_rounds': 0, 'overlap_step': True}}\nimport deepspeed",
    ),
    "E another process": TRAINS.replace('"stage": 2', '"stage": 3, **SUPER').replace(
        "import deepspeed",
        "SUPER = {'offload_optimizer': {'device': 'cpu', 'pin_memory': True, "
        "'super_offload': True}}\nimport deepspeed",
    ),
    "E no engine": "import torch\ntorch.ones(3)\n",
    "E no forward": TRAINS.split("for step")[0],
    "E another engine": """
import torch
torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2).cuda())
""",
    "E generate": """
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained("model").generate(max_new_tokens=4)
""",
    "E offline": """
from transformers import AutoConfig
AutoConfig.from_pretrained("no-such-owner/no-such-model")
""",
    "E starts ranks": """
import subprocess
subprocess.run(["torchrun", "--nproc_per_node", "8", "other.py"])
""",
}
