// Python in a thread of its own: the page stays quick while it answers.
import { loadPyodide } from "./pyodide/pyodide.mjs";

const started = start();

async function start() {
  const [python, packed] = await Promise.all([loadPyodide(), read("./engine.zip")]);
  python.unpackArchive(packed, "zip", { extractDir: "/engine" });
  python.runPython("import sys; sys.path.insert(0, '/engine')");
  const browser = python.pyimport("zero_sizer.cli.browser");
  self.postMessage({ ready: true });
  return browser;
}

async function read(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer.arrayBuffer();
}

self.onmessage = async ({ data: { id, question } }) => {
  try {
    const browser = await started;
    self.postMessage({ id, reply: JSON.parse(browser.ask(JSON.stringify(question))) });
  } catch (error) {
    self.postMessage({ id, failure: String(error?.message ?? error) });
  }
};
