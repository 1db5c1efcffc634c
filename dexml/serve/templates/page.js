"use strict";
const $ = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
let models = [];
let fresh = null; // the label added last: {model, id}

async function call(method, path, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(path, { method, body: body && JSON.stringify(body), headers: { "content-type": "application/json", ...headers } });
  } catch {
    throw new Error("The service cannot be reached. Is it still running?");
  }
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  const wait = answer.headers.get("retry-after");
  throw new Error(answer.status === 429 ? `The service is busy. Try again in ${wait} s.` : sentence(content.detail || `The service answered ${answer.status}.`));
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function make(tag, text, className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

async function start() {
  models = await call("GET", "models");
  const options = () => models.map((model) => new Option(model.name));
  $("model").append(...options());
  $("other").append(new Option("nothing", ""), ...options());
  $("one").hidden = $("two").hidden = models.length < 2;
  $("labels").hidden = !models.some((model) => model.changeable);
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const key of ["model", "other", "text"]) if (asked.get(key)) $(key).value = asked.get(key);
  about();
  if ($("text").value) ask();
}

const chosen = () => models.find((model) => model.name === $("model").value);

function about() {
  const model = chosen();
  const facts = [`${count(model.labels)} labels`, model.training_texts && `${count(model.training_texts)} training texts`];
  $("facts").textContent = [model.name, ...facts].filter(Boolean).join(" · ");
  document.title = `${model.name} · dexml`;
  $("examples").replaceChildren(...model.examples.map((text) => {
    const button = make("button", text);
    button.type = "button";
    button.onclick = () => { $("text").value = text; ask(); };
    const item = make("li", "");
    item.append(button);
    return item;
  }));
}

let latest = 0; // an answer that was overtaken by a newer question is dropped

async function ask() {
  const text = $("text").value.trim();
  if (!text) return $("text").focus();
  const turn = ++latest;
  const names = [...new Set([$("model").value, $("other").value])].filter(Boolean);
  history.replaceState(null, "", "#" + new URLSearchParams({ text, model: names[0], ...(names[1] && { other: names[1] }) }));
  $("go").disabled = true;
  $("results").classList.add("busy");
  try {
    const answers = await Promise.all(names.map((name) => question(text, name)));
    if (turn === latest) show(answers);
  } catch (error) {
    if (turn === latest) { problem(error.message); $("results").hidden = true; }
  } finally {
    if (turn === latest) { $("go").disabled = false; $("results").classList.remove("busy"); }
  }
}

async function question(text, name) {
  const begin = performance.now();
  const near = models.find((model) => model.name === name).training_texts ? 6 : 0;
  const answer = await call("POST", "predict", { text, model: name, k: Number($("k").value), neighbours: near });
  return { ...answer, took: Math.max(1, Math.round(performance.now() - begin)) };
}

function show(answers) {
  problem("");
  $("answers").replaceChildren(...answers.map((answer, i) => card(answer, i, answers[1 - i])));
  const near = answers.find((answer) => answer.neighbours?.length);
  const names = new Set(answers.flatMap((answer) => answer.labels.map((label) => label.text)));
  $("near").hidden = !near;
  $("whose").hidden = answers.length < 2;
  $("whose").textContent = near === answers[0] ? "A" : "B";
  $("whose").className = `letter ${$("whose").textContent}`;
  $("results").classList.toggle("single", answers.length === 1 && Boolean(near));
  $("neighbours").replaceChildren(...(near ? near.neighbours.map((one) => neighbour(one, names)) : []));
  $("results").hidden = false;
  const best = answers[0].labels[0];
  $("said").textContent = best ? `${answers[0].labels.length} labels, the best is ${best.text}` : "No labels";
}

function card(answer, i, rival) {
  const article = $("answer").content.cloneNode(true).firstElementChild;
  const heading = article.querySelector("h2");
  if (rival) {
    article.classList.add("AB"[i]);
    heading.append(make("span", "AB"[i], "letter"));
  }
  heading.append(make("bdi", rival ? answer.model : "Labels"));
  const shared = rival && answer.labels.filter((label) => rival.labels.some((one) => one.text === label.text)).length;
  article.querySelector(".took").textContent = `${answer.took} ms` + (rival ? ` · ${shared} of ${answer.labels.length} in both` : "");
  const rows = answer.labels.map((label, place) => row(answer, label, place, rival));
  article.querySelector(".found").append(...(rows.length ? rows : [make("li", "This model has no labels.", "none")]));
  return article;
}

function row(answer, label, place, rival) {
  const item = $("row").content.cloneNode(true).firstElementChild;
  const [rank, name, tag, value, remove] = item.children;
  const top = Math.max(1e-9, ...answer.labels.map((one) => Math.abs(one.probability ?? one.score)));
  const main = label.probability ?? label.score;
  rank.textContent = place + 1;
  name.textContent = label.text;
  if (rival && !rival.labels.some((one) => one.text === label.text)) tag.textContent = "only here";
  value.textContent = label.probability === undefined ? label.score.toFixed(3) : `${Math.round(100 * main)} %`;
  if (label.probability !== undefined) value.append(make("small", label.score.toFixed(2)));
  value.title = label.probability === undefined ? "score" : "probability, score";
  item.style.setProperty("--share", `${Math.max(0, (100 * main) / (label.probability === undefined ? Math.max(1, top) : 1))}%`);
  if (fresh && fresh.model === answer.model && fresh.id === label.id) {
    item.classList.add("fresh");
    tag.textContent = "new";
    remove.hidden = false;
    remove.ariaLabel = `Remove ${label.text}`;
    remove.onclick = () => change("DELETE", `labels?id=${label.id}&model=${encodeURIComponent(answer.model)}`, null, answer.model, "Removed");
  }
  return item;
}

function neighbour(one, names) {
  const item = make("li", "");
  const line = make("p", "");
  const text = make("bdi", one.text);
  line.append(text, make("span", one.similarity.toFixed(2)));
  const labels = make("ul", "");
  labels.append(...one.labels.map((label) => make("li", label, names.has(label) ? "hit" : "")));
  item.append(line, labels);
  return item;
}

async function change(method, path, body, name, done) {
  const note = $("changed");
  $("adding").disabled = true;
  try {
    const result = await call(method, path, body, { authorization: `Bearer ${$("token").value}` });
    fresh = method === "POST" ? { model: name, id: result.ids[0] } : null;
    models.find((model) => model.name === name).labels = result.count;
    note.className = "good";
    note.textContent = `${done}. The model has ${count(result.count)} labels.`;
    about();
    if ($("text").value.trim()) ask();
    return true;
  } catch (error) {
    note.className = "bad";
    note.textContent = error.message;
    return false;
  } finally {
    $("adding").disabled = false;
  }
}

$("ask").onsubmit = (event) => { event.preventDefault(); ask(); };
$("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
};
for (const id of ["model", "other", "k"]) $(id).onchange = () => { about(); if ($("text").value.trim()) ask(); };
$("add").onsubmit = async (event) => {
  event.preventDefault();
  const name = $("model").value, label = $("label").value.trim();
  if (await change("POST", "labels", { labels: [label], model: name }, name, `Added “${label}”`)) $("label").value = "";
};
start().catch((error) => problem(error.message));
