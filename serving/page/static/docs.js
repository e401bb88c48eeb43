// The OpenAPI document as a page to read.
const main = document.getElementById("doc");

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Text with `code` marks as elements.
function prose(text, tag = "p") {
  const element = make(tag);
  for (const [at, part] of text.split("`").entries()) element.append(at % 2 ? make("code", part) : part);
  return element;
}

function resolve(spec, node) {
  let found = node;
  while (found?.$ref) found = found.$ref.slice(2).split("/").reduce((place, name) => place[name], spec);
  return found;
}

function kind(spec, schema) {
  const full = resolve(spec, schema) ?? {};
  if (full.anyOf) return full.anyOf.map((one) => kind(spec, one)).join(" or ");
  if (full.const !== undefined) return JSON.stringify(full.const);
  if (full.enum) return full.enum.map((value) => JSON.stringify(value)).join(", ");
  if (full.type === "array") return `list of ${kind(spec, full.items)}`;
  return full.format === "binary" ? "file" : schema.$ref ? schema.$ref.split("/").at(-1) : full.type ?? "any";
}

function table(title, heads, rows, of = "") {
  if (!rows.length) return [];
  const box = make("div", undefined, { class: "table", tabindex: "0", role: "region", "aria-label": `${title} ${of}`.trim() });
  const grid = make("table");
  const head = grid.createTHead().insertRow();
  for (const name of heads) head.append(make("th", name, { scope: "col" }));
  const body = grid.createTBody();
  for (const [name, type, text] of rows) {
    const row = body.insertRow();
    row.append(make("td"), make("td", type), prose(text ?? "", "td"));
    row.cells[0].append(make("code", name));
  }
  box.append(grid);
  return [make("h3", title), box];
}

function fields(spec, schema) {
  const full = resolve(spec, schema) ?? {};
  const needed = new Set(full.required);
  return Object.entries(full.properties ?? {}).map(([name, value]) => [
    name, kind(spec, value) + (needed.has(name) ? ", required" : ""), resolve(spec, value).description ?? value.description,
  ]);
}

function operation(spec, path, verb, entry) {
  const id = `${verb}-${path.replace(/[^a-z0-9]+/gi, "-")}`;
  const card = make("section", undefined, { class: "card", id, "aria-labelledby": `${id}-title` });
  const title = make("h2", undefined, { id: `${id}-title` });
  title.append(make("span", entry["x-protocol"] ?? verb.toUpperCase(), { class: "verb" }), make("span", path, { class: "path" }), make("span", entry.summary));
  card.append(title);
  if (entry.description) card.append(...entry.description.split("\n\n").map((text) => prose(text)));
  const given = (entry.parameters ?? []).map((one) => resolve(spec, one));
  card.append(...table("Parameters", ["name", "type", "what happens"], given.map((one) => [
    `${one.name}`, `${kind(spec, one.schema)} (${one.in})${one.required ? ", required" : ""}`, one.description,
  ]), id));
  for (const [media, { schema }] of Object.entries(entry.requestBody?.content ?? {})) {
    card.append(...table(`Body, ${media}`, ["field", "type", "what happens"], fields(spec, schema), id));
  }
  card.append(...table("Answers", ["status", "type", "when"], Object.entries(entry.responses).map(([status, answer]) => {
    const full = resolve(spec, answer);
    return [status, Object.keys(full.content ?? {}).join(", "), full.description];
  }), id));
  return { card, id };
}

async function begin() {
  const about = document.getElementById("about");
  const answer = await fetch("openapi.json").catch(() => null);
  if (!answer?.ok) {
    about.textContent = "The service did not answer. Is it still running?";
    return;
  }
  const spec = await answer.json();
  about.textContent = spec.info.description;
  const list = make("ul", undefined, { class: "toc" });
  const contents = make("section", undefined, { class: "card", "aria-labelledby": "toc-title" });
  contents.append(make("h2", "Routes", { id: "toc-title" }), list);
  main.append(contents);
  for (const [path, verbs] of Object.entries(spec.paths)) {
    for (const [verb, entry] of Object.entries(verbs)) {
      const { card, id } = operation(spec, path, verb, entry);
      const item = make("li");
      item.append(make("a", `${entry["x-protocol"] ?? verb.toUpperCase()} ${path}`, { href: `#${id}` }));
      list.append(item);
      main.append(card);
    }
  }
  const shapes = make("section", undefined, { class: "card", "aria-labelledby": "shapes-title" });
  shapes.append(make("h2", "Shapes", { id: "shapes-title" }));
  for (const [name, schema] of Object.entries(spec.components.schemas)) {
    shapes.append(...table(name, ["field", "type", "meaning"], fields(spec, schema)));
  }
  main.append(shapes);
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

begin();
