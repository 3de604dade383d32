// The question: what the form holds, as words of the command line, as files and as a link.

const MODEL = "model/config.json"; // a model is called after its folder
const form = document.querySelector("#question");
const stated = () => [...form.elements].filter((element) => element.name);
let configName = "";

/** Names of the form's files that are not those of its fields. */
export function nameConfig(name) {
  configName = name;
  document.querySelector("#config-name").textContent = name;
}

/** What a command of zero-sizer is asked: words, and the files that they name. */
export function question(command) {
  const words = [command];
  const files = {};
  if (form.config.value.trim()) {
    const name = configName || (isObject(form.config.value) ? "ds.json" : "job.yaml");
    files[name] = form.config.value;
    words.push(name);
  }
  for (const element of stated()) {
    const { name, value } = element;
    if (name === "config" || !value.trim()) continue;
    if (element.dataset.only && element.dataset.only !== command) continue;
    if (name === "model_config") {
      files[MODEL] = value;
      words.push("--model", MODEL);
    } else if (element.dataset.kind === "switch") {
      words.push(value === "on" ? element.dataset.flag : element.dataset.flag.replace("--", "--no-"));
    } else if (name !== "model" || !form.model_config.value.trim()) {
      words.push(element.dataset.flag, value.trim());
    }
  }
  return { words, files };
}

/** The line that a shell takes. */
export function line(words) {
  return ["zero-sizer", ...words].map(quoted).join(" ");
}

function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** The question as the part of an address that no browser sends. */
export function fragment(command) {
  const found = new URLSearchParams({ ask: command });
  for (const { name, value } of stated()) if (value.trim()) found.set(name, value);
  if (configName) found.set("config_name", configName);
  return `#${found}`;
}

/** Fills the form from such a part; the command that is asked for, if it asks for one. */
export function restore(text) {
  const found = new URLSearchParams(text.replace(/^#/, ""));
  for (const element of stated()) element.value = found.get(element.name) ?? "";
  nameConfig(found.get("config_name") ?? "");
  unfold();
  return ["check", "choose"].includes(found.get("ask")) ? found.get("ask") : "";
}

/** Opens what is folded around a field that says something. */
export function unfold() {
  for (const element of stated()) {
    const around = element.closest("details");
    if (around && element.value.trim()) around.open = true;
  }
}

/** A file goes where it belongs: a model's config.json, or the config of the job. */
export function place(name, text) {
  const isModel = /"(model_type|architectures|num_hidden_layers)"\s*:/.test(text);
  if (isModel) {
    form.model_config.value = text;
    form.model.value = "";
  } else {
    form.config.value = text;
    nameConfig(name);
  }
  unfold();
}

/** True where the config is a DeepSpeed JSON, into which a change can be written. */
export function takesChanges() {
  return isObject(form.config.value) && !("deepspeed" in JSON.parse(form.config.value));
}

/** Writes changes, keys of the config and flags, into the form. */
export function change(changes) {
  const config = JSON.parse(form.config.value);
  for (const { key, value } of changes) {
    const field = stated().find((element) => element.dataset.flag === key.replace("--no-", "--"));
    if (field?.dataset.kind === "switch") {
      field.value = key.startsWith("--no-") || value === false ? "off" : "on";
    } else if (field) {
      field.value = String(value);
    } else {
      write(config, key.split("."), value);
    }
  }
  form.config.value = JSON.stringify(config, null, 2);
  unfold();
}

function write(config, path, value) {
  const last = path.pop();
  for (const part of path) {
    if (typeof config[part] !== "object" || config[part] === null) config[part] = {};
    config = config[part];
  }
  if (value === null) delete config[last];
  else config[last] = value;
}

function isObject(text) {
  try {
    const found = JSON.parse(text);
    return typeof found === "object" && found !== null && !Array.isArray(found);
  } catch {
    return text.trim().startsWith("{");
  }
}
