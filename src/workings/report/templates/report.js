
"use strict";
// The page is whole without this. It opens what is folded away for a link into it, where the browser does not, and for printing;
// and it says a cell in full, for whoever points at it or moves with the arrow keys.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", reveal);
for (const link of document.querySelectorAll('a[href^="#"]')) link.addEventListener("click", () => setTimeout(reveal)); // the same one again
reveal();
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll(".fold:not([open])")) { fold.open = true; fold.dataset.closed = ""; }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll(".fold[data-closed]")) { fold.open = false; delete fold.dataset.closed; }
});
const inFull = (cell) => {
  if (cell.title) return cell.title;
  const guesses = [...cell.querySelectorAll("li")].map((li) =>
    (li.title || li.querySelector("bdi").textContent) + " " + li.querySelector("b").textContent + (li.className ? " (target)" : ""));
  const elsewhere = cell.querySelector("p");
  if (elsewhere) guesses.push("target " + [...elsewhere.children].map((part) => part.textContent).join(" "));
  const position = cell.closest("table").tHead.rows[0].cells[cell.cellIndex].firstChild.textContent;
  return cell.parentElement.cells[0].textContent + ", " + position + ":  " + guesses.join("   ");
};
const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
for (const table of document.querySelectorAll("[data-cells]")) {
  const rows = [...table.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")]);
  const readout = table.closest("section, article").querySelector(".readout");
  if (!rows.length) continue;
  readout.hidden = false;
  rows[0][0].tabIndex = 0;
  const say = (event) => { const cell = event.target.closest("tbody td"); if (cell) readout.textContent = inFull(cell); };
  table.addEventListener("mouseover", say);
  table.addEventListener("focusin", say);
  table.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    const from = event.target.closest("tbody td");
    if (!step || !from) return;
    const at = rows.findIndex((row) => row.includes(from));
    const to = rows[at + step[0]]?.[rows[at].indexOf(from) + step[1]];
    if (!to) return;
    event.preventDefault();
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  });
}
