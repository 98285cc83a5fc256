// Runs the model on an image of the visitor, here in the browser, and draws which tokens each stage used.
const LONGEST = 4096; // pixels of a side; a larger image is made smaller before it is prepared
const SCALE = 4; // of the drawings
const ACCENT = "#e07a1f";

let ort; // onnxruntime-web, in the build that came with the page

const element = name => document.getElementById(name);
const say = text => { element("status").textContent = text; };

// RGB bytes of a bitmap, as the model takes them.
function pixelsOf(bitmap) {
  const shrink = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * shrink)), height = Math.max(1, Math.round(bitmap.height * shrink));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from]; rgb[to++] = data[from + 1]; rgb[to++] = data[from + 2];
  }
  return new ort.Tensor("uint8", rgb, [1, height, width, 3]);
}

// For each stage which tokens it kept, in spatial order, and which of them an earlier stage had frozen.
export function stagesOf(perms, { keep, tokens, rearranged, discarded, fused }) {
  let order = Array.from({ length: tokens }, (_, place) => place);
  const frozen = new Set();
  return keep.map((count, stage) => {
    const ranked = perms[stage] ? Array.from(perms[stage], place => order[Number(place)]) : order;
    const chosen = ranked.slice(0, count).filter(place => place < tokens);
    const kept = new Set(chosen), reused = new Set(chosen.filter(place => frozen.has(place)));
    for (let place = 0; place < tokens; place++) if (!kept.has(place)) frozen.add(place);
    if (discarded) {
      order = ranked.slice(0, count);
      if (fused && perms[stage]) order = [...order, tokens]; // it has no place in the image
    } else if (!rearranged) {
      order = ranked;
    }
    return { kept, reused };
  });
}

// The image as the model saw it: what was normalized, in pixel values again.
function seenOf(images, { mean, std }) {
  const [, , height, width] = images.dims, area = height * width;
  const seen = new ImageData(width, height);
  for (let place = 0; place < area; place++) {
    for (let channel = 0; channel < 3; channel++) {
      seen.data[4 * place + channel] = Math.round(255 * (images.data[channel * area + place] * std[channel] + mean[channel]));
    }
    seen.data[4 * place + 3] = 255;
  }
  return seen;
}

function drawStage(seen, { kept, reused }, [rows, columns]) {
  const canvas = document.createElement("canvas");
  canvas.width = seen.width * SCALE; canvas.height = seen.height * SCALE;
  const context = canvas.getContext("2d");
  const small = new OffscreenCanvas(seen.width, seen.height);
  small.getContext("2d").putImageData(seen, 0, 0);
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  const wide = canvas.width / columns, high = canvas.height / rows;
  for (let place = 0; place < rows * columns; place++) {
    const left = (place % columns) * wide, top = Math.floor(place / columns) * high;
    if (!kept.has(place)) {
      context.fillStyle = "rgb(128 128 128 / 85%)";
      context.fillRect(left, top, wide, high);
    } else if (reused.has(place)) {
      context.strokeStyle = ACCENT; context.lineWidth = 3;
      context.strokeRect(left + 1.5, top + 1.5, wide - 3, high - 3);
    }
  }
  return canvas;
}

function show(outputs, settings) {
  const { classes, probabilities, images } = outputs;
  element("classes").replaceChildren(...Array.from(classes.data, (index, place) => {
    const row = document.createElement("tr"), meter = document.createElement("meter");
    meter.value = probabilities.data[place];
    const cells = [settings.classes[Number(index)] ?? `class ${index}`, meter, `${(100 * probabilities.data[place]).toFixed(1)}%`];
    row.append(...cells.map(content => { const cell = document.createElement("td"); cell.append(content); return cell; }));
    return row;
  }));
  const seen = seenOf(images, settings);
  const perms = settings.keep.map((_, stage) => outputs[`stage${stage}.perm`]?.data);
  const stages = stagesOf(perms, settings);
  element("stages").replaceChildren(...stages.map((stage, index) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    caption.textContent = `Stage ${index + 1}: ${stage.kept.size} of ${settings.tokens} tokens, ${stage.reused.size} reused`;
    figure.append(drawStage(seen, stage, settings.grid), caption);
    return figure;
  }));
  element("result").hidden = false;
}

let busy = false; // a session runs one image at a time

async function classify(session, settings, file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    say(`${file.name} is not an image that this browser reads. Choose a JPEG, PNG or WebP file.`);
    return;
  }
  say("Computing …");
  const begun = performance.now();
  const outputs = await session.run({ pixels: pixelsOf(bitmap) });
  show(outputs, settings);
  say(`${file.name}: ${bitmap.width} × ${bitmap.height} pixels, ${Math.round(performance.now() - begun)} ms.`);
}

// A button for each image that came with the page.
function offer(count, take) {
  element("samples").hidden = !count;
  element("samples").replaceChildren(...Array.from({ length: count }, (_, place) => {
    const button = document.createElement("button"), image = document.createElement("img");
    image.src = `samples/${place + 1}.png`;
    image.alt = `Sample ${place + 1}`;
    button.append(image);
    button.addEventListener("click", async () => {
      const answer = await fetch(image.src).catch(() => null);
      if (answer?.ok) await take([new File([await answer.blob()], image.alt)]);
      else say(`${image.alt} cannot be loaded.`);
    });
    return button;
  }));
}

// Once it has run an image of zeros: the first run compiles shaders, and may fail.
async function onGpu({ height, width }) {
  const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["webgpu"] });
  await session.run({ pixels: new ort.Tensor("uint8", new Uint8Array(height * width * 3), [1, height, width, 3]) });
  return session;
}

// A session on the GPU where the page may use one and there is one that runs the model, else on the processor.
async function open(settings) {
  ort = await import(`./ort/${settings.runtime}`);
  ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
  ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
  ort.env.logLevel = "error";
  if (settings.webgpu) {
    try {
      if (await navigator.gpu?.requestAdapter()) return [await onGpu(settings), "GPU"];
    } catch (error) {
      console.warn(`The GPU does not run the model: ${error.message}`);
    }
  }
  return [await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] }), "processor"];
}

async function start() {
  const settings = await (await fetch("model.json")).json();
  const [session, where] = await open(settings);
  element("model").textContent = `${settings.description}, on the ${where} of this device`;
  const take = async files => {
    if (busy || !files.length) return;
    busy = true;
    await classify(session, settings, files[0])
      .catch(error => say(`The model cannot be run on ${files[0].name}: ${error.message}`));
    busy = false;
  };
  offer(settings.samples, take);
  const drop = element("drop");
  element("file").addEventListener("change", event => {
    take([...event.target.files]);
    event.target.value = ""; // else the same file a second time would be no change
  });
  drop.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") element("file").click(); });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, event => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  document.body.dataset.ready = "true";
}

start().catch(error => { element("model").textContent = `The model cannot be loaded: ${error.message}`; });
