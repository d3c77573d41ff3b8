"use strict";
// What the whole page does: light and dark, figures that fit, tables that sort, answers that can be searched.
const $ = id => document.getElementById(id);
const embedded = id => JSON.parse($(id).textContent);

// Every word of the query somewhere in the text, whatever its case.
const matcher = query => {
  const words = query.normalize().toLowerCase().split(/\s+/).filter(Boolean);
  return text => words.every(word => text.includes(word));
};
const searchable = text => text.normalize().toLowerCase();

(() => {
  const root = document.documentElement, button = $("theme");
  const figures = embedded("figures"), dark = embedded("dark");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)"), onPaper = matchMedia("print");
  const colours = new RegExp(Object.keys(dark).join("|"), "gi");
  const recoloured = value => typeof value === "string" ? value.replace(colours, found => dark[found.toLowerCase()])
    : Array.isArray(value) ? value.map(recoloured)
    : value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, recoloured(v)]))
    : value;
  let drawn;
  const draw = theme => {
    if (theme === drawn) return;
    drawn = theme;
    for (const [name, figure] of Object.entries(figures)) {
      const {data, layout} = theme === "dark" ? recoloured(figure) : structuredClone(figure);
      Plotly.react("figure-" + name, data, layout, {displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]]});
    }
  };
  const chosen = () => root.dataset.theme || (prefersDark.matches ? "dark" : "light");
  const show = () => {
    const theme = chosen();
    button.textContent = theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${theme === "dark" ? "light" : "dark"} colours`);
    draw(onPaper.matches ? "light" : theme);
  };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = chosen() === "dark" ? "light" : "dark"; show(); });
  prefersDark.addEventListener("change", show);
  onPaper.addEventListener("change", show);
  // A figure of many panels may be taller than what is left of a sheet, or than a whole one. On paper each panel is
  // a strip of its own, a frame around the same drawing, and sheets end between them.
  const strips = () => {
    for (const plot of document.querySelectorAll(".plot[data-cuts]")) {
      const edges = [0, ...plot.dataset.cuts.split(" ").map(Number), Number(plot.dataset.height)];
      const whole = plot.firstElementChild;
      edges.slice(1).forEach((end, i) => {
        const strip = plot.cloneNode(false), drawing = whole.cloneNode(true);
        strip.removeAttribute("id");
        strip.classList.add("strip");
        Object.assign(strip.style, {height: end - edges[i] + "px", minHeight: 0});
        drawing.style.marginTop = -edges[i] + "px";
        strip.append(drawing);
        plot.before(strip);
      });
      plot.classList.add("whole");
    }
  };
  const joined = () => {
    for (const strip of document.querySelectorAll(".strip")) strip.remove();
    for (const plot of document.querySelectorAll(".whole")) plot.classList.remove("whole");
  };
  // Paper can't be opened: of the warnings everything is printed.
  let closed = [];
  addEventListener("beforeprint", () => {
    draw("light");
    closed = [...document.querySelectorAll(".warnings details:not([open])")];
    for (const details of closed) details.open = true;
    joined();
    strips();
  });
  addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
    joined();
    show();
  });

  // A figure shrinks with the screen until its type would be too small to read, then its frame scrolls.
  const fit = () => {
    for (const plot of document.querySelectorAll(".plot")) {
      plot.style.zoom = Math.min(1, Math.max(0.72, plot.parentElement.clientWidth / plot.dataset.width));
    }
  };
  addEventListener("resize", fit);
  fit();
  show();

  for (const element of document.querySelectorAll("[data-needs-script]")) element.hidden = false;
})();

// Sorting: a button in each head. Cells sort by data-value where a column has it, else by their text; empty
// ones come last either way.
const makeSortable = table => {
  const heads = [...table.tHead.rows[0].cells], collator = new Intl.Collator(undefined, {numeric: true});
  const key = (row, column) => {
    const cell = row.cells[column], value = cell.dataset.value;
    return value !== undefined ? Number(value) : cell.textContent.trim();
  };
  const sort = column => {
    const down = heads[column].getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
    const body = table.tBodies[0], rows = [...body.rows].map(row => [key(row, column), row]);
    const numeric = rows.some(([value]) => typeof value === "number");
    const missing = value => numeric ? typeof value !== "number" : value === "–";
    rows.sort(([a], [b]) => missing(a) || missing(b) ? missing(a) - missing(b)
      : sign * (numeric ? a - b : collator.compare(a, b)));
    body.append(...rows.map(([, row]) => row));
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(head.firstChild);
    head.prepend(button);
    button.addEventListener("click", () => sort(column));
  });
};
document.querySelectorAll("table.sortable").forEach(makeSortable);

if ($("search")) (() => {
  const sets = [...document.querySelectorAll("details.set")];
  const samples = [...document.querySelectorAll(".sample")].map(element => ({
    element, text: searchable(`${element.textContent} ${element.dataset.trigger ?? ""}`),
  }));
  let opened;
  $("search").addEventListener("input", event => {
    const query = event.target.value.trim(), matches = matcher(query);
    opened ??= sets.map(set => set.open);
    let count = 0;
    for (const {element, text} of samples) {
      element.hidden = !matches(text);
      count += !element.hidden;
    }
    sets.forEach((set, i) => {
      set.hidden = !set.querySelector(".sample:not([hidden])");
      set.open = query ? true : opened[i];
    });
    if (!query) opened = undefined;
    $("found").textContent = query ? `${count} of ${samples.length} prompts match` : "";
  });
})();
