// The page: asks the engine, and shows what it says.
import { change, fragment, line, nameConfig, place, question, restore, takesChanges, unfold } from "./question.js";

const LARGEST = 4 * 2 ** 20; // bytes of a file that somebody drops
const EXAMPLE = {
  config: {
    train_micro_batch_size_per_gpu: 4,
    gradient_accumulation_steps: 4,
    bf16: { enabled: true },
    optimizer: { type: "AdamW", params: { lr: 1e-5 } },
    zero_optimization: { stage: 3, overlap_comm: true },
  },
  fields: { model: "llama-3-8b", gpu: "a100-80gb", gpus_per_node: "8", nodes: "1", host_memory: "1TiB", seq_len: "4096", checkpointing: "off" },
};
const find = (selector) => document.querySelector(selector);
const form = find("#question");
const said = find("#said");
const waiting = new Map();
let engine = null;
let isReady = false;
let latest = 0;
let asked = null;
let page = "";

function start() {
  // Of a blob, so that the thread obeys this page's policy: it can ask this server and no other.
  const source = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  engine = new Worker(url, { type: "module" });
  engine.onmessage = ({ data }) => {
    if (data.ready) {
      isReady = true;
      if (!waiting.size) tell("Ready.");
      return;
    }
    waiting.get(data.id)?.(data);
    waiting.delete(data.id);
  };
  engine.onerror = (event) => stop(event.message || "its files could not be loaded");
  tell("Loading the engine, once ...");
}

/** Nobody waits for an engine that did not start. */
function stop(why) {
  engine = null;
  for (const answered of waiting.values()) answered({ failure: why });
  waiting.clear();
  problem(`The engine did not start: ${why}.`);
}

let last = 0;
function ask(question) {
  const id = ++last;
  return new Promise((resolve, reject) => {
    if (!engine) return reject(new Error("the engine did not start"));
    waiting.set(id, ({ reply, failure }) => (failure ? reject(new Error(failure)) : resolve(reply)));
    engine.postMessage({ id, question });
  });
}

const printed = (question, ...words) => ask({ ...question, words: [...question.words, ...words] });

async function answer(command) {
  const mine = ++latest;
  const now = question(command);
  history.replaceState(null, "", fragment(command));
  find("#alert").replaceChildren();
  said.setAttribute("aria-busy", "true");
  tell(isReady ? "Computing ..." : "Loading the engine, once ...");
  try {
    const reply = await printed(now, "--format", "html");
    if (mine !== latest) return;
    asked = now;
    show(reply);
    if (reply.out && command === "check" && takesChanges()) await offerFixes(mine);
    if (reply.out && command === "choose") offerPlan();
  } catch (error) {
    if (mine === latest) problem(`This should not happen: ${error.message}`);
  } finally {
    if (mine === latest) said.setAttribute("aria-busy", "false");
  }
}

function show({ out, err }) {
  const whole = out.replace(/<style>.*?<\/style>/s, ""); // the page has these rules already
  const found = new DOMParser().parseFromString(whole, "text/html").querySelector("main");
  find("#beside").hidden = !found;
  if (!found) {
    said.replaceChildren();
    problem(err.trim().replace(/^zero-sizer: /, "") || "There is no answer.");
    return;
  }
  page = out;
  said.replaceChildren(...document.importNode(found, true).childNodes);
  said.setAttribute("aria-busy", "false");
  find("#command").textContent = line(asked.words);
  find("#terminal").open = false;
  find("#text").textContent = "";
  tell(`Answered: ${said.querySelector("h1").textContent}.`);
  if (find("#answer").getBoundingClientRect().top > innerHeight / 2) find("#answer").scrollIntoView();
}

/** Each change that would make the job fit gets a button that makes it. */
async function offerFixes(mine) {
  const rows = [...said.querySelectorAll("[data-name=fixes] tbody tr")];
  if (!rows.length) return;
  const { fixes } = JSON.parse((await printed(asked, "--format", "json")).out);
  if (mine !== latest) return;
  rows.forEach((row, index) => {
    const about = row.lastElementChild.textContent.trim();
    const use = () => {
      change(fixes[index].changes);
      answer("check");
    };
    row.append(cell(button("Apply", use, `Apply: ${about}`)));
  });
  said.querySelector("[data-name=fixes] thead tr").append(document.createElement("td"));
}

/** The chosen config gets a button that takes it over. */
function offerPlan() {
  const code = said.querySelector("[data-name=config] pre");
  if (!code || (form.config.value.trim() && !takesChanges())) return;
  const checkpointing = said.querySelector("[data-name=plans] tbody td[data-label=checkpointing]");
  const use = () => {
    form.config.value = code.textContent;
    nameConfig("");
    const blocks = checkpointing.textContent.trim();
    form.checkpointing.value = { yes: "on", no: "off" }[blocks] || "";
    form.checkpointing_how.value = blocks.startsWith("every-") ? blocks : "";
    form.micro_batch.value = "";
    answer("check");
  };
  code.after(button("Use this config", use));
}

function button(words, use, label = words) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "apply";
  made.textContent = words;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", use);
  return made;
}

function cell(content) {
  const made = document.createElement("td");
  made.setAttribute("role", "cell");
  made.dataset.label = "";
  const inner = document.createElement("span");
  inner.append(content);
  made.append(inner);
  return made;
}

function tell(text) {
  find("#status").textContent = text;
}

function problem(text) {
  const made = document.createElement("p");
  made.className = "problem";
  made.textContent = text;
  find("#alert").replaceChildren(made);
  tell("");
}

async function take(file, where) {
  if (!file) return;
  if (file.size > LARGEST) return problem(`${file.name} is larger than 4 MiB: no config.`);
  const text = await file.text();
  if (where) {
    where.value = text;
    if (where === form.config) nameConfig(file.name);
  } else place(file.name, text);
  tell(`${file.name} read.`);
}

function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function copy(text, told) {
  try {
    await navigator.clipboard.writeText(text);
    tell(told);
  } catch {
    tell("The browser does not let this page copy; select it instead.");
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  answer(event.submitter?.value || "check");
});
form.addEventListener(
  "invalid", // where nobody sees it, nobody can mend it
  ({ target }) => {
    const around = target.closest("details");
    if (around) around.open = true;
  },
  true,
);
find("#example").addEventListener("click", () => {
  form.reset();
  nameConfig("");
  form.config.value = JSON.stringify(EXAMPLE.config, null, 2);
  for (const [name, value] of Object.entries(EXAMPLE.fields)) form[name].value = value;
  tell("An example is filled in.");
});
find("#link").addEventListener("click", () => {
  history.replaceState(null, "", fragment(asked?.words[0] ?? "check"));
  copy(location.href, "The link is copied: it carries the whole question.");
});
find("#copy").addEventListener("click", () => copy(find("#command").textContent, "The command is copied."));
find("#save-page").addEventListener("click", () => save("zero-sizer.html", page, "text/html"));
find("#save-json").addEventListener("click", async () => {
  const more = asked.words[0] === "check" ? ["--timeline"] : [];
  save("zero-sizer.json", (await printed(asked, "--format", "json", ...more)).out, "application/json");
});
find("#terminal").addEventListener("toggle", async () => {
  if (find("#terminal").open && !find("#text").textContent) find("#text").textContent = (await printed(asked)).out;
});
find("#config-file").addEventListener("change", ({ target }) => take(target.files[0], form.config));
find("#model-file").addEventListener("change", ({ target }) => take(target.files[0], form.model_config));
form.config.addEventListener("input", () => form.config.value || nameConfig(""));
form.addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("dropping");
});
form.addEventListener("dragleave", () => form.classList.remove("dropping"));
form.addEventListener("drop", async (event) => {
  event.preventDefault();
  form.classList.remove("dropping");
  for (const file of event.dataTransfer.files) await take(file);
});
addEventListener("hashchange", follow);

function follow() {
  if (!location.hash.includes("=")) return; // a link within the page
  const command = restore(location.hash);
  if (command) answer(command);
}

start();
follow();
unfold();
