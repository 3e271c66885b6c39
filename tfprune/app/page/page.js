// The application of a run: LiteRT.js runs its TFLite files here. `tfprune/app/static.py` writes
// what the page is told; drawings and photos are prepared as `tfprune/app/contents.py` does.
import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";

const told = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const ARRAYS = { uint8: Uint8Array, float32: Float32Array, int32: Int32Array };

function element(name, text = "", properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text;
  return made;
}

// -- examples: arrays of the values that the files take ---------------------------------------

const bytes = Uint8Array.from(atob(told.examples.values), (each) => each.charCodeAt(0));
const values = new ARRAYS[told.examples.dtype](bytes.buffer);
const count = told.examples.shape[0];
const length = values.length / count;
const example = (number) => values.slice(number * length, (number + 1) * length);

// The weights with which each pixel of a shorter or longer line sums those of the line: bilinear,
// over all pixels where the line shrinks, as `tf.image.resize(antialias=True)`.
function spans(from, to) {
  const scale = from / to;
  const reach = Math.max(scale, 1);
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - reach));
    const last = Math.min(from - 1, Math.ceil(centre + reach));
    const found = [];
    let sum = 0;
    for (let i = first; i <= last; i++) {
      const weight = Math.max(0, 1 - Math.abs(i + 0.5 - centre) / reach);
      found.push([i, weight]);
      sum += weight;
    }
    return found.map(([i, weight]) => [i, weight / sum]);
  });
}

// `pixels` has height * width * channels values.
export function resize(pixels, height, width, channels, toHeight, toWidth) {
  const wide = new Float32Array(height * toWidth * channels);
  spans(width, toWidth).forEach((span, x) => {
    for (let y = 0; y < height; y++)
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (const [i, weight] of span) sum += weight * pixels[(y * width + i) * channels + c];
        wide[(y * toWidth + x) * channels + c] = sum;
      }
  });
  const found = new Uint8Array(toHeight * toWidth * channels);
  spans(height, toHeight).forEach((span, y) => {
    for (let x = 0; x < toWidth * channels; x++) {
      let sum = 0;
      for (const [i, weight] of span) sum += weight * wide[i * toWidth * channels + x];
      found[y * toWidth * channels + x] = Math.max(0, Math.min(255, Math.round(sum)));
    }
  });
  return found;
}

// An image of any size, as red, green, blue and opacity, as the data have them.
export function photo(rgba, height, width) {
  const [toHeight, toWidth, channels] = told.image;
  const pixels = new Uint8Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const share = rgba[4 * i + 3] / 255;
    // What is transparent shows white paper.
    const [r, g, b] = [0, 1, 2].map((c) => Math.round(rgba[4 * i + c] * share + 255 * (1 - share)));
    if (channels === 1) pixels[i] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
    else pixels.set([r, g, b], 3 * i);
  }
  return resize(pixels, height, width, channels, toHeight, toWidth);
}

// What was drawn, cut out and centred, on paper of the data's colour; null where nothing was.
export function drawing(ink, height, width) {
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (ink[y * width + x] > 25) {
        [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
        [left, right] = [Math.min(left, x), Math.max(right, x)];
      }
  if (bottom < 0) return null;
  const [tall, wide] = [bottom - top + 1, right - left + 1];
  const size = Math.trunc(Math.max(tall, wide) * 1.3);
  const [down, across] = [Math.floor((size - tall) / 2), Math.floor((size - wide) / 2)];
  const rgba = new Uint8Array(size * size * 4);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      const inside = y >= down && y < down + tall && x >= across && x < across + wide;
      const dark = inside ? ink[(y - down + top) * width + x - across + left] : 0;
      const value = told.bright ? 255 - dark : dark;
      rgba.set([value, value, value, 255], 4 * (y * size + x));
    }
  return photo(rgba, size, size);
}

// -- answers ------------------------------------------------------------------------------------

let models = [];

// Outputs as probabilities: as they are, or the softmax of logits.
function probabilities(found) {
  const sum = found.reduce((all, each) => all + each, 0);
  if (Math.min(...found) >= 0 && Math.abs(sum - 1) <= 0.05) return [...found];
  const most = Math.max(...found);
  const powers = [...found].map((each) => Math.exp(each - most));
  const total = powers.reduce((all, each) => all + each, 0);
  return powers.map((each) => each / total);
}

async function once(model, input) {
  const [found] = await model.run([input]);
  const array = found.toTypedArray().slice();
  found.delete();
  return array;
}

// One call is often shorter than the clock's step: so many calls are timed together.
async function milliseconds(model, input) {
  const times = [];
  for (let turn = 0; turn < 5; turn++) {
    let calls = 0;
    const start = performance.now();
    do {
      await once(model, input);
      calls++;
    } while (performance.now() - start < 2);
    times.push((performance.now() - start) / calls);
  }
  return times.sort((one, other) => one - other)[2];
}

// What every file answers to one example.
export async function answers(array) {
  const found = [];
  for (const [number, file] of told.files.entries()) {
    const input = new Tensor(ARRAYS[file.dtype].from(array), file.shape);
    const output = await once(models[number], input);
    const time = await milliseconds(models[number], input);
    input.delete();
    const shares = probabilities(output);
    const place = shares.indexOf(Math.max(...shares));
    found.push({ file, output: [...output], place, share: shares[place], time });
  }
  return found;
}

let asked = 0;
let running = Promise.resolve();

// Only the latest example is answered, one at a time.
function answer(array) {
  const turn = ++asked;
  look(array);
  running = running.then(async () => {
    if (turn !== asked) return;
    const found = await answers(array);
    if (turn === asked) show(found);
  }, failed);
  running = running.catch(failed);
}

function failed(error) {
  at("said").textContent = `The files cannot be run here: ${error?.message ?? error}`;
}

function show(found) {
  const rows = [];
  let before = "";
  for (const { file, place, share, time } of found) {
    const row = element("tr");
    const name = element("th", file.variant === before ? "" : file.variant, { scope: "row" });
    if (file.variant !== before) row.className = "tp-first";
    before = file.variant;
    const said = element("td");
    said.append(element("strong", told.classes[place]));
    if (place !== found[0].place)
      said.append(" ", element("b", "differs", { className: "tp-differs" }));
    const sure = element("td");
    const meter = element("meter", "", { min: 0, max: 1, value: share });
    meter.setAttribute("aria-hidden", "true");
    sure.append(meter, element("span", `${(100 * share).toFixed(1)}%`));
    row.append(name, element("td", file.format), said, sure);
    row.append(...[`${time.toPrecision(3)} ms`, file.size, file.value].map((each) => element("td", each)));
    rows.push(row);
  }
  at("answers").tBodies[0].replaceChildren(...rows);
  hint();
  const differing = found.filter((each) => each.place !== found[0].place).length;
  at("said").textContent = differing
    ? `${differing} of ${found.length} files differ from ${found[0].file.title}.`
    : `All ${found.length} files agree.`;
}

// A table that is wider than its box says so.
function hint() {
  for (const box of document.querySelectorAll(".box, .tp-wide")) {
    let said = box.nextElementSibling;
    if (!said?.classList.contains("hint")) {
      said = element("p", "The table goes on to the right: scroll it sideways.", { className: "note hint" });
      box.after(said);
    }
    said.hidden = box.scrollWidth <= box.clientWidth;
  }
}

// The example as the files see it.
function look(array) {
  if (!told.image) return;
  const [height, width, channels] = told.image;
  const canvas = at("seen");
  [canvas.width, canvas.height] = [width, height];
  const shown = new ImageData(width, height);
  for (let i = 0; i < width * height; i++)
    for (let c = 0; c < 4; c++)
      shown.data[4 * i + c] = c === 3 ? 255 : array[channels * i + Math.min(c, channels - 1)];
  canvas.getContext("2d").putImageData(shown, 0, 0);
  at("seen-by").hidden = false;
}

// -- ways to give an example --------------------------------------------------------------------

function pick() {
  const number = Number(at("number").value);
  const truth = told.examples.truth[number];
  at("truth").textContent = `Example ${number}${truth === undefined ? "" : ` is ${truth}`}`;
  answer(example(number));
}

function answerOwn(array) {
  at("truth").textContent = "";
  answer(array);
}

function paper() {
  const canvas = at("paper");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { lineWidth: 22, lineCap: "round", lineJoin: "round" });
  let from = null;
  let pen = null;
  let down = false;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * canvas.width) / box.width,
      ((event.clientY - box.top) * canvas.height) / box.height,
    ];
  };
  const line = (to) => {
    context.beginPath();
    context.moveTo(...(from ?? to));
    context.lineTo(...to);
    context.stroke();
    from = to;
  };
  const read = () => {
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const found = drawing(data.filter((_, i) => i % 4 === 3), canvas.height, canvas.width);
    if (found) answerOwn(found);
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    from = null;
    down = true;
    line(place(event));
  };
  canvas.onpointermove = (event) => {
    if (down) line(place(event));
  };
  canvas.onpointerup = canvas.onpointercancel = () => {
    if (!down) return;
    down = false;
    read();
  };
  canvas.onkeydown = (event) => {
    const step = { ArrowUp: [0, -14], ArrowDown: [0, 14], ArrowLeft: [-14, 0], ArrowRight: [14, 0] }[event.key];
    if (event.key !== " " && !step) return;
    event.preventDefault();
    pen ??= { place: [canvas.width / 2, canvas.height / 2], down: false };
    if (event.key === " ") {
      pen.down = !pen.down;
      from = null;
    } else {
      pen.place = pen.place.map((each, i) => Math.max(12, Math.min(canvas.width - 12, each + step[i])));
    }
    if (pen.down) {
      line(pen.place);
      read();
    }
  };
  at("clear").onclick = () => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    pen = null;
  };
}

async function uploaded() {
  const [file] = at("photo").files;
  if (!file) return;
  try {
    const image = await createImageBitmap(file, { colorSpaceConversion: "none" });
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    answerOwn(photo(context.getImageData(0, 0, image.width, image.height).data, image.height, image.width));
  } catch {
    at("said").textContent = `${file.name} is not an image that this browser reads: choose another one.`;
  }
}

// -- what does not change -----------------------------------------------------------------------

// Titles of files by what is said of them: what holds for several is said once.
function together(pairs) {
  const found = new Map();
  for (const [title, said] of pairs) found.set(said, [...(found.get(said) ?? []), title]);
  return [...found].map(([said, titles]) => [said, titles.join("; ")]);
}

function views() {
  const head = element("tr");
  for (const each of ["", "format", "answer", "", "time here", "size", `test ${told.by}`])
    head.append(element("th", each, { scope: "col" }));
  at("answers").tHead.append(head);
  for (const [note, titles] of together(told.files.flatMap(({ title, notes }) => notes.map((note) => [title, note]))))
    at("left-out").append(element("li", `${titles}: ${note}`));
  for (const [why, titles] of together(Object.entries(told.leftOut)))
    at("left-out").append(element("li", `Left out: ${titles} (${why})`));
  const walk = () => {
    at("front").innerHTML = told.fronts[at("cost").value][Number(at("place").value) - 1];
    hint();
  };
  const choose = () => {
    const members = told.fronts[at("cost").value].length;
    Object.assign(at("place"), { max: members, value: members });
    walk();
  };
  at("cost").append(...Object.keys(told.fronts).map((each) => element("option", each)));
  at("cost").onchange = choose;
  at("place").oninput = walk;
  choose();
  const names = Object.keys(told.layers);
  at("layers-part").hidden = !names.length;
  at("variant").append(...names.map((each) => element("option", each)));
  const draw = () => {
    at("layers").innerHTML = told.layers[at("variant").value] ?? "";
  };
  at("variant").value = names.at(-1) ?? "";
  at("variant").onchange = draw;
  window.addEventListener("resize", hint);
  draw();
}

// LiteRT writes all of its log as errors; only its errors stay there.
const complain = console.error.bind(console);
console.error = (...said) =>
  (/^(VERBOSE|INFO|WARNING): /.test(said[0]) ? console.debug : complain)(...said);

async function start() {
  views();
  await loadLiteRt(new URL("litert/core/wasm/", document.baseURI).href, { threads: false });
  for (const file of told.files) {
    const content = await fetch(file.path);
    if (!content.ok) throw new Error(`${file.path}: ${content.status}`);
    models.push(
      await loadAndCompile(new Uint8Array(await content.arrayBuffer()), {
        accelerator: "wasm",
        cpuOptions: { numThreads: 1 },
      }),
    );
  }
  at("number").max = count - 1;
  at("number").oninput = pick;
  if (told.image) {
    at("draw").hidden = told.image[2] !== 1;
    at("upload").hidden = false;
    paper();
    at("photo").onchange = uploaded;
  }
  pick();
}

window.tfprune = { answers, drawing, example, photo, resize };
start().catch(failed);
