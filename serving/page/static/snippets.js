// Code to copy, with this service's address and model filled in.
export async function showSnippets({ tabs, panels, copied, model }) {
  const answer = await fetch("page/snippets.json");
  const filled = (code) => code
    .replaceAll("{origin}", new URL(".", document.baseURI).href.replace(/\/$/, ""))
    .replaceAll("{model}", model);
  const entries = (await answer.json()).snippets;
  const made = entries.map(({ id, title, about, code }) => {
    const tab = document.createElement("button");
    Object.assign(tab, { type: "button", id: `tab-${id}`, textContent: title });
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", `panel-${id}`);
    const panel = document.createElement("div");
    Object.assign(panel, { id: `panel-${id}`, className: "snippet" });
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    const words = document.createElement("p");
    words.textContent = about;
    const shell = document.createElement("div");
    shell.className = "shell";
    const block = document.createElement("pre");
    block.tabIndex = 0;
    block.setAttribute("role", "region");
    block.setAttribute("aria-label", `${title} code`);
    block.textContent = filled(code);
    const copy = document.createElement("button");
    Object.assign(copy, { type: "button", className: "plain", textContent: "Copy" });
    copy.addEventListener("click", () => copyText(block.textContent, copy, copied));
    shell.append(block, copy);
    panel.append(words, shell);
    return { tab, panel };
  });
  const choose = (chosen, focus) => {
    for (const [at, { tab, panel }] of made.entries()) {
      tab.setAttribute("aria-selected", String(at === chosen));
      tab.tabIndex = at === chosen ? 0 : -1;
      panel.hidden = at !== chosen;
    }
    if (focus) made[chosen].tab.focus();
  };
  for (const [at, { tab }] of made.entries()) {
    tab.addEventListener("click", () => choose(at));
    tab.addEventListener("keydown", ({ key }) => {
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: made.length - 1 }[key];
      if (next !== undefined) choose((next + made.length) % made.length, true);
    });
  }
  tabs.replaceChildren(...made.map(({ tab }) => tab));
  panels.replaceChildren(...made.map(({ panel }) => panel));
  choose(0);
}

export async function copyText(text, button, status) {
  const before = button.textContent;
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = "Select and copy by hand";
  }
  button.textContent = said;
  status.textContent = said;
  setTimeout(() => { button.textContent = before; }, 1600);
}
