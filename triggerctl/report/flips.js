"use strict";
// Two strategies side by side: how often only one of them showed the habit, and on which rows.
if ($("flips")) (() => {
  const {groups, first, second, asked, said} = embedded("flips");
  const AT_ONCE = 100, LONG = 600;
  const chosen = {a: $("flips-a"), b: $("flips-b"), set: $("flips-set")}, search = $("flips-search");
  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
  const make = (tag, text, properties = {}) => Object.assign(document.createElement(tag), {textContent: text, ...properties});

  const fill = (select, options, value) => {
    select.append(...options.map(([key, text]) => make("option", text, {value: key})));
    select.value = value;
  };
  fill(chosen.a, groups.map((label, i) => [i, label]), first);
  fill(chosen.b, groups.map((label, i) => [i, label]), second);
  fill(chosen.set, [["", "all"], ...[...new Set(asked.map(each => each.set))].map(name => [name, name])], "");

  // Everything both were asked, table by table: [what was asked, A's verdicts, B's verdicts].
  const shared = (a, b) => {
    const ours = new Map();
    for (const each of said) if (each.group === a) for (const [i, v] of Object.entries(each.verdicts)) ours.set(i, v);
    return said.filter(each => each.group === b)
      .flatMap(each => Object.entries(each.verdicts).filter(([i]) => ours.has(i)).map(([i, v]) => [asked[i], ours.get(i), v]));
  };

  const count = tables => {
    const bySet = new Map();
    for (const [table, a, b] of tables) {
      const sum = bySet.get(table.set) ?? {wanted: table.wanted, both: 0, neither: 0, a: 0, b: 0};
      bySet.set(table.set, sum);
      sum.neither += table.agreed[0];
      sum.both += table.agreed[1];
      for (let i = 0; i < a.length; i++) sum[a[i] === b[i] ? (a[i] === "1" ? "both" : "neither") : a[i] === "1" ? "a" : "b"]++;
    }
    return bySet;
  };

  const listed = tables => tables.flatMap(([table, a, b]) => table.rows.flatMap((row, i) => a[i] === b[i] ? [] : [{
    set: table.set, seed: table.seed, wanted: table.wanted, trigger: table.triggers[i], prompt: table.prompts[i], row, byA: a[i] === "1",
  }]));

  const table = (heads, rows, label) => {
    const made = make("table", "", {className: "sortable"});
    made.setAttribute("aria-label", label);
    const head = made.createTHead().insertRow();
    for (const text of heads) head.append(make("th", text, {scope: "col"}));
    const body = made.createTBody();
    for (const cells of rows) body.insertRow().append(...cells);
    makeSortable(made);
    const wide = make("div", "", {className: "wide", tabIndex: 0});
    wide.setAttribute("role", "group");
    wide.setAttribute("aria-label", label);
    wide.append(made);
    return wide;
  };
  const cell = (text, value) => {
    const made = make("td", text);
    if (value !== undefined) made.dataset.value = value;
    return made;
  };
  const long = text => {
    const isLong = text.length >= LONG * 1.5;
    const made = make("td", isLong ? text.slice(0, LONG) : text, {className: "text", dir: "auto"});
    if (isLong) {
      const rest = make("details", "", {className: "rest"});
      rest.append(make("summary", `… all ${text.length.toLocaleString("en")} characters`), text.slice(LONG));
      made.append(rest);
    }
    return made;
  };
  const short = text => text.length > 40 ? long(text) : make("td", text, {dir: "auto"});
  const meaning = wanted => wanted === null ? "" : wanted ? " (wanted)" : " (leak)";

  const show = () => {
    const a = Number(chosen.a.value), b = Number(chosen.b.value), matches = matcher(search.value);
    const place = $("flips-tables"), say = text => { $("flips-said").textContent = text; };
    place.replaceChildren();
    if (a === b) return say("Choose two different strategies.");
    const all = shared(a, b), tables = all.filter(([each]) => !chosen.set.value || each.set === chosen.set.value);
    if (!all.length) return say(`${groups[a]} and ${groups[b]} have no row in common: other seeds, data or evaluation rows.`);
    const bySet = count(tables), sums = [...bySet.values()];
    const total = key => sums.reduce((sum, each) => sum + each[key], 0);
    const rows = listed(tables).filter(each => matches(searchable(`${each.prompt ?? each.row} ${each.trigger ?? ""}`)));
    const seeds = new Set(tables.map(([each]) => each.seed));
    say(`${total("a") + total("b")} of ${plural(total("a") + total("b") + total("both") + total("neither"), "row")} differ`
      + ` (${plural(seeds.size, "seed")}): only ${groups[a]} showed the habit on ${total("a")}, only ${groups[b]} on ${total("b")}.`
      + (search.value.trim() ? ` ${rows.length} of them match.` : ""));
    place.append(make("h3", "By set"), table(["set", "rows", "both", `only ${groups[a]}`, `only ${groups[b]}`, "neither"], [...bySet].map(([name, sum]) => [
      make("th", name + meaning(sum.wanted), {scope: "row"}),
      ...[sum.both + sum.a + sum.b + sum.neither, sum.both, sum.a, sum.b, sum.neither].map(n => cell(String(n), n)),
    ]), "Rows by set, and who showed the habit"));
    if (!rows.length) return;
    let shown = 0;
    const more = make("button", "", {type: "button"}), list = make("div", "");
    const line = each => [
      make("td", each.set + meaning(each.wanted)), cell(String(each.seed), each.seed), short(each.trigger ?? "–"),
      long(each.prompt ?? `row ${each.row} (the run kept no prompts)`), cell(groups[each.byA ? a : b]),
    ];
    const extend = () => {
      shown += AT_ONCE;
      list.replaceChildren(table(["set", "seed", "trigger", "prompt", "showed the habit"], rows.slice(0, shown).map(line), "Rows on which the two differ"));
      more.hidden = shown >= rows.length;
      more.textContent = `Show more (${Math.min(shown, rows.length)} of ${rows.length} are shown)`;
    };
    more.addEventListener("click", extend);
    extend();
    place.append(make("h3", "Row by row"), list, more);
  };
  for (const select of Object.values(chosen)) select.addEventListener("change", show);
  search.addEventListener("input", show);
  show();
})();
