// The review on a page of images: keys and buttons that decide, decisions that are saved in the background, and the next
// images without a new page. A decision is shown at once, and marked until the server has stored it.
"use strict";
(() => {
  const UNSAVED_MILLISECONDS = 300; // after which a decision is marked as not saved
  const RETRY_MILLISECONDS = [1000, 2000, 5000, 10000];
  const REQUEST_MILLISECONDS = 15000;
  const POLL_MILLISECONDS = 5000;
  const MOST_IN_REQUEST = 10;
  const CARDS_AHEAD = 12; // loaded before they are reached
  const WORDS = { approve: "approved", reject: "rejected", redo: "redo" };
  const KEYS = { a: "approve", r: "reject", d: "redo" };

  let bar; // with what is left
  let known = 0; // decisions of all reviewers that this page has seen
  let current = null; // the cell that a button decides on
  let isOver = false;
  const waiting = new Map(); // decisions that are not sent, by image
  let sending = null; // those of the request that is running
  let finishing = false;
  let failures = 0;
  let retry = null;
  let hasDecided = false; // on this page, undone decisions included
  const done = []; // for undo: what this page decided, and what was there before
  let next = null; // the address of the next page, null at the end
  let loading = null;

  const cells = () => [...document.querySelectorAll("[data-image]")];
  const cellsOf = (image) => cells().filter((cell) => cell.dataset.image === image);
  const part = (name) => bar.querySelector(`[data-${name}]`);

  function show(cell, decision, note) {
    if (decision) cell.dataset.decision = decision;
    else delete cell.dataset.decision;
    cell.dataset.note = note || "";
    let chip = cell.querySelector("[data-verdict]");
    if (!decision) chip?.remove();
    else {
      if (!chip) {
        chip = document.createElement("span");
        chip.dataset.verdict = "";
        cell.querySelector(".facts").prepend(chip);
      }
      chip.className = `chip chip-${decision}`;
      chip.textContent = WORDS[decision];
    }
    cell.querySelector("[data-said]").textContent = note ? `“${note}”` : "";
  }

  function decide(cell, decision, note = null) {
    const image = cell.dataset.image;
    const before = cell.dataset.decision || null;
    done.push({ image, decision: before, note: cell.dataset.note || null });
    put(image, decision, note);
  }

  function put(image, decision, note) {
    hasDecided = true;
    for (const cell of cellsOf(image)) {
      count(cell.dataset.decision, decision, cell);
      show(cell, decision, note);
    }
    const entry = { image, decision, note };
    waiting.set(image, entry);
    setTimeout(() => mark(entry), UNSAVED_MILLISECONDS);
    send();
    if (!failures) say();
  }

  // The numbers are the server's; until it has answered they are changed here.
  function count(before, after, cell) {
    if (cell !== cellsOf(cell.dataset.image)[0]) return;
    const change = (name, by) => {
      const number = part("counts").querySelector(`[data-count=${name}]`);
      number.textContent = Number(number.textContent) + by;
    };
    change(before || "undecided", -1);
    change(after || "undecided", 1);
    showProgress();
  }

  function showProgress() {
    const left = Number(part("counts").querySelector("[data-count=undecided]").textContent);
    const progress = part("progress");
    progress.value = progress.max - left;
  }

  function isUnsaved(entry) {
    return waiting.get(entry.image) === entry || sending?.get(entry.image) === entry;
  }

  function mark(entry) {
    if (!isUnsaved(entry)) return;
    for (const cell of cellsOf(entry.image)) cell.classList.add("is-unsaved");
    say();
  }

  function say(problem = "") {
    const count = document.querySelectorAll(".is-unsaved").length;
    const text = part("saved");
    const state = waiting.size || sending || !hasDecided ? "" : "All saved";
    text.textContent = problem || (count ? `${count} not saved yet` : state);
    text.classList.toggle("problem", Boolean(problem));
  }

  // One request at a time, so that the order of decisions is kept.
  async function send() {
    if (sending || isOver || (!waiting.size && !finishing)) return;
    clearTimeout(retry);
    sending = new Map([...waiting].slice(0, MOST_IN_REQUEST));
    for (const image of sending.keys()) waiting.delete(image);
    const finish = finishing && !waiting.size;
    const body = JSON.stringify({ decisions: [...sending.values()], since: known, finish });
    const answer = await fetch(`${bar.dataset.review}/decisions`, {
      method: "POST",
      body,
      headers: { "Content-Type": "application/json", "X-Ideogram-Review": "1" },
      signal: AbortSignal.timeout(REQUEST_MILLISECONDS),
    }).catch(() => null);
    const said = await answer?.json().catch(() => null);
    const sent = sending;
    sending = null;
    if (answer?.ok && said) {
      failures = 0;
      if (finish) finishing = false;
      for (const [image] of sent) {
        if (!waiting.has(image)) for (const cell of cellsOf(image)) cell.classList.remove("is-unsaved");
      }
      take(said);
      say();
      send();
      return;
    }
    for (const [image, entry] of sent) if (!waiting.has(image)) waiting.set(image, entry);
    for (const entry of waiting.values()) mark(entry);
    if (answer && [401, 403, 404, 409, 422].includes(answer.status)) stop(answer.status, said?.problem);
    else {
      const pause = RETRY_MILLISECONDS[Math.min(failures, RETRY_MILLISECONDS.length - 1)];
      failures += 1;
      say(`${waiting.size} not saved, tried again. ${said?.problem || "The server does not answer."}`);
      retry = setTimeout(send, pause);
    }
  }

  function stop(status, problem) {
    isOver = true;
    const words = {
      401: "Log in to Airflow again, and reload this page.",
      403: "You may not decide: you need the right to change the DAG's task instances.",
      404: "The review does not exist any more.",
    };
    say(`${waiting.size} not saved. ${problem || words[status] || ""}`);
  }

  // What the server has: the numbers, and decisions that others have taken.
  function take(said) {
    for (const entry of said.entries) {
      if (waiting.has(entry.image) || sending?.has(entry.image)) continue;
      for (const cell of cellsOf(entry.image)) show(cell, entry.decision, entry.note);
    }
    known = said.known;
    if (!waiting.size && !sending) {
      const names = { approve: "approved", reject: "rejected", redo: "redo", undecided: "undecided" };
      for (const [name, field] of Object.entries(names)) {
        part("counts").querySelector(`[data-count=${name}]`).textContent = said[field];
      }
      showProgress();
    }
    if (said.closed || said.finished) {
      isOver = said.closed;
      part("state").textContent = said.closed ? "The review has ended." : "The review ends now.";
      for (const button of bar.querySelectorAll("button")) button.disabled = true;
    }
  }

  async function poll() {
    if (!document.hidden && !sending && !waiting.size && !isOver) {
      const answer = await fetch(`${bar.dataset.review}?since=${known}`).catch(() => null);
      const said = answer?.ok && !sending && !waiting.size ? await answer.json().catch(() => null) : null;
      if (said && said.known >= known) take(said);
    }
    setTimeout(poll, POLL_MILLISECONDS);
  }

  async function loadMore() {
    if (!next) return;
    loading ||= (async () => {
      const answer = await fetch(next).catch(() => null);
      if (!answer?.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const here = new Set([...document.querySelectorAll(".card")].map((card) => card.id));
      const added = [...fresh.querySelectorAll("[data-grid] .cell")].filter(
        (cell) => !here.has(cell.querySelector(".card").id),
      );
      document.querySelector("[data-grid]").append(...added);
      dispatchEvent(new Event("cards-added"));
      // A list of undecided images has become shorter: its first page has the next ones.
      const isShrinking = new URLSearchParams(location.search).has("decision");
      next = isShrinking ? added.length && next : fresh.querySelector("[rel=next]")?.getAttribute("href");
      document.querySelector(".pager")?.remove();
    })();
    await loading;
    loading = null;
  }

  function go(cell) {
    cell.querySelector(".card").focus();
    cell.scrollIntoView({ block: "nearest" });
  }

  // The next undecided image; those before are left until the end is reached.
  async function advance(from) {
    const all = cells();
    const at = all.indexOf(from);
    const found = all.slice(at + 1).find((cell) => !cell.dataset.decision);
    if (found) {
      go(found);
      if (all.length - all.indexOf(found) <= CARDS_AHEAD) loadMore();
    } else if (next) {
      await loadMore();
      if (cells().length > all.length) return advance(from);
    } else {
      const before = all.find((cell) => !cell.dataset.decision);
      if (before) go(before);
    }
  }

  function act(decision) {
    const cell = current;
    if (isOver || !cell || (decision === "redo" && !("redo" in bar.dataset))) return;
    if (decision === "redo") ask(cell);
    else {
      decide(cell, decision);
      advance(cell);
    }
  }

  function ask(cell) {
    const form = part("note");
    form.hidden = false;
    const field = form.querySelector("input");
    field.value = cell.dataset.note || "";
    field.focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      form.hidden = true;
      decide(cell, "redo", field.value.trim() || null);
      advance(cell);
    };
    form.onkeydown = (event) => {
      if (event.key !== "Escape") return;
      form.hidden = true;
      go(cell);
    };
  }

  function undo() {
    const last = done.pop();
    if (isOver || !last) return;
    put(last.image, last.decision, last.note);
    const [cell] = cellsOf(last.image);
    if (cell) go(cell);
  }

  function finish() {
    const left = Number(part("counts").querySelector("[data-count=undecided]").textContent);
    const button = part("finish");
    if (left && button.dataset.sure !== "yes") {
      button.dataset.sure = "yes";
      button.textContent = `Finish with ${left} undecided?`;
      return;
    }
    finishing = true;
    send();
  }

  function enlarge() {
    const stage = document.querySelector("[data-stage]");
    stage.hidden = !stage.hidden;
    enlargeCurrent();
  }

  function enlargeCurrent() {
    const stage = document.querySelector("[data-stage]");
    const small = current?.querySelector(".frame img");
    if (stage.hidden || !small) return;
    stage.style.bottom = `${bar.offsetHeight}px`;
    const image = stage.querySelector("img") || new Image();
    stage.prepend(image);
    image.src = small.src.replace(/\/thumbnail$/, "/file");
    stage.querySelector("p").textContent = current.querySelector(".prompt").textContent;
    const after = cells()[cells().indexOf(current) + 1]?.querySelector(".frame img");
    if (after) new Image().src = after.src.replace(/\/thumbnail$/, "/file");
  }

  function choose(cell) {
    current?.classList.remove("is-current");
    current = cell;
    current.classList.add("is-current");
    enlargeCurrent();
  }

  function begin() {
    bar = document.querySelector("[data-review]");
    if (!bar) return;
    known = Number(bar.dataset.known);
    next = document.querySelector("[rel=next]")?.getAttribute("href");
    if (new URLSearchParams(location.search).has("decision")) next = location.href;
    document.addEventListener("focusin", (event) => {
      const cell = event.target.closest("[data-image]");
      if (!cell) return;
      choose(cell);
      const all = cells();
      if (all.length - all.indexOf(cell) <= CARDS_AHEAD) loadMore();
    });
    setTimeout(poll, POLL_MILLISECONDS);
    if (!("open" in bar.dataset)) {
      isOver = true;
      return;
    }
    for (const button of bar.querySelectorAll("[data-decide]")) {
      button.addEventListener("click", () => act(button.dataset.decide));
    }
    part("undo").addEventListener("click", undo);
    part("finish").addEventListener("click", finish);
    document.addEventListener("keydown", (event) => {
      const takesKeys = event.target.closest("pre, dialog, input:not([type=checkbox]), select");
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.repeat || takesKeys) return;
      if (event.key in KEYS) {
        event.preventDefault(); // otherwise the key is the first letter of the note
        act(KEYS[event.key]);
      } else if (event.key === "u") undo();
      else if (event.key === "z") enlarge();
      else if (event.key === "Escape" && !document.querySelector("[data-stage]").hidden) enlarge();
    });
    addEventListener("beforeunload", (event) => {
      if (!isOver && (waiting.size || sending)) event.preventDefault();
    });
    const first = cells().find((cell) => !cell.dataset.decision) || cells()[0];
    if (first && !location.hash) {
      choose(first);
      first.querySelector(".card").focus({ preventScroll: true });
    }
  }
  addEventListener("DOMContentLoaded", begin);
})();
