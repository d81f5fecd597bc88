// The box to try a text: asks every chosen prompt and shows the answers side by side.
"use strict";

const element = (name, text = "", kind = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = kind;
  return made;
};

// A JSON object is a row of columns; anything else is the text itself.
const rowOf = text => {
  if (!text.trimStart().startsWith("{")) return text;
  try { return JSON.parse(text); } catch { return text; }
};

const ask = async (prompt, row) => {
  const start = performance.now();
  const response = await fetch("/v1/classify", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({prompt, inputs: [row]}),
  });
  const document = await response.json();
  if (!response.ok) throw new Error(document.error.message);
  return {...document.data[0], milliseconds: performance.now() - start};
};

const bars = answer => {
  if (answer.probabilities === null) return [element("p", answer.answer)];
  const sorted = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  return sorted.map(([label, chance]) => {
    const bar = element("div", "", label === answer.answer ? "bar best" : "bar");
    const place = element("div"), filled = element("i");
    filled.style.width = `${100 * chance}%`;
    place.append(filled);
    bar.append(element("b", label), place, element("span", `${(100 * chance).toFixed(1)} %`));
    return bar;
  });
};

const show = async (prompt, row) => {
  const card = element("article", "", "answer"), title = element("h3", prompt), time = element("span", "…");
  title.append(time);
  card.append(title);
  document.getElementById("answers").append(card);
  try {
    const answer = await ask(prompt, row);
    time.textContent = `${answer.milliseconds.toFixed(0)} ms`;
    card.append(...bars(answer));
    if (answer.cut) card.append(element("p", `${answer.cut} tokens in the middle were left out.`, "note"));
  } catch (error) {
    time.textContent = "";
    card.append(element("p", error.message, "error"));
  }
};

const form = document.getElementById("try-form");
form?.addEventListener("submit", async event => {
  event.preventDefault();
  const button = form.querySelector("button");
  const chosen = [...form.querySelectorAll("input:checked")].map(box => box.value);
  document.getElementById("answers").replaceChildren();
  button.disabled = true;
  const row = rowOf(document.getElementById("text").value);
  await Promise.all(chosen.map(prompt => show(prompt, row)));
  button.disabled = false;
});
