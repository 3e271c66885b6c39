// Runs TFLite files with the runtimes of the web: `tfprune/devices/wasm.py` calls `window.begin`.
// The page asks only the server that it came from.

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint32: Uint32Array,
  bool: Uint8Array,
};

async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.arrayBuffer();
}

// Tensors are named by the signature of the file, or by the graph; `place` is that of the graph.
function placed(details, ends) {
  const found = ends.map((end) => details.findIndex((each) => end.names.includes(each.name)));
  return found.includes(-1) ? ends.map((end) => end.place) : found;
}

// -- runtimes: each loads a file and gives { set, run, read } ---------------------------------

let litert;

async function loadLiteRt(content, ends, threads) {
  const module = await import("@litertjs/core");
  litert ??= module.loadLiteRt("/packages/@litertjs/core/wasm/", { threads: threads > 1 });
  await litert;
  const model = await module.loadAndCompile(new Uint8Array(content), {
    accelerator: "wasm",
    cpuOptions: { numThreads: threads },
  });
  const inputs = placed(model.getInputDetails(), ends.inputs);
  const outputs = placed(model.getOutputDetails(), ends.outputs);
  const feeds = [];
  return {
    set(arrays) {
      arrays.forEach((array, i) => {
        feeds[inputs[i]] = new module.Tensor(array, ends.inputs[i].shape);
      });
    },
    async run() {
      for (const each of await model.run(feeds)) each.delete();
    },
    async read() {
      const found = await model.run(feeds);
      const arrays = outputs.map((place) => found[place].toTypedArray().slice());
      for (const each of found) each.delete();
      return arrays;
    },
  };
}

let client;

function loadClient() {
  // The file is made for CommonJS, and for a script.
  window.exports = {};
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/packages/@tensorflow/tfjs-tflite/wasm/tflite_web_api_client.js";
    script.onload = () => {
      window.tfweb.tflite_web_api.setWasmPath("/packages/@tensorflow/tfjs-tflite/wasm/");
      resolve();
    };
    script.onerror = () => reject(new Error(`${script.src} cannot be loaded`));
    document.head.append(script);
  });
}

async function loadTfjs(content, ends, threads) {
  client ??= loadClient();
  await client;
  const model = await window.tfweb.TFLiteWebModelRunner.create(content, { numThreads: threads });
  if (!model) throw new Error("it cannot be loaded");
  const inputs = model.getInputs();
  const outputs = model.getOutputs();
  const runOnce = () => {
    if (!model.infer()) throw new Error("it does not run");
  };
  const into = placed(inputs, ends.inputs);
  const from = placed(outputs, ends.outputs);
  return {
    set(arrays) {
      arrays.forEach((array, i) => inputs[into[i]].data().set(array));
    },
    async run() {
      runOnce();
    },
    async read() {
      runOnce();
      return from.map((place) => outputs[place].data().slice());
    },
  };
}

const RUNTIMES = { "litert.js": loadLiteRt, "tfjs-tflite": loadTfjs };

// -- what Python asks -------------------------------------------------------------------------

const loaded = {};

async function load({ key, runtime, file, ends, threads }) {
  const model = await RUNTIMES[runtime](await fetched(`/data/${file}/content`), ends, threads);
  const feeds = ends.inputs.map(async (end) => new ARRAYS[end.dtype](await fetched(end.path)));
  model.set(await Promise.all(feeds));
  loaded[key] = model;
  return model;
}

// How far each output is from that of LiteRT: the largest difference.
async function compare(asked) {
  const found = await (await load(asked)).read();
  const off = [];
  for (const [i, end] of asked.ends.outputs.entries()) {
    const wanted = new ARRAYS[end.dtype](await fetched(end.path));
    if (found[i].length !== wanted.length)
      throw new Error(`output ${i} has ${found[i].length} values instead of ${wanted.length}`);
    let most = 0;
    for (let j = 0; j < wanted.length; j++) {
      const here = Number(found[i][j]);
      const there = Number(wanted[j]);
      if (Object.is(here, there)) continue;
      const distance = Math.abs(here - there);
      most = Math.max(most, Number.isNaN(distance) ? Infinity : distance);
    }
    off.push(most);
  }
  return off;
}

// One call is often shorter than the clock's step: so many calls are timed together.
const BLOCK_MS = 2;

async function time({ keys, rounds }) {
  const calls = {};
  const times = {};
  for (const key of keys) {
    let count = 1;
    // The first calls prepare what later ones reuse.
    for (let i = 0; i < 3; i++) await loaded[key].run();
    while ((await block(loaded[key], count)) * count < BLOCK_MS && count < 10000) count *= 2;
    calls[key] = count;
    times[key] = [];
  }
  for (let round = 0; round < rounds; round++) {
    // Another file goes first each time.
    for (let i = 0; i < keys.length; i++) {
      const key = keys[(i + round) % keys.length];
      times[key].push(await block(loaded[key], calls[key]));
    }
    // The browser gets its turn.
    await new Promise((resolve) => setTimeout(resolve));
  }
  return times;
}

async function block(model, calls) {
  const start = performance.now();
  for (let i = 0; i < calls; i++) await model.run();
  return (performance.now() - start) / calls;
}

const ASKED = {
  compare,
  time,
  load: async (asked) => {
    await load(asked);
  },
};

// The answer lies in `window.answer` when it is there: Python waits for it with a limit.
window.begin = (name, argument) => {
  window.answer = null;
  ASKED[name](argument).then(
    (value) => {
      window.answer = { value };
    },
    (error) => {
      window.answer = { error: String(error?.message ?? error) };
    },
  );
};
window.ready = true;
