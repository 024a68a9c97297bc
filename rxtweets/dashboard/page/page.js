// Shows the moments that the server sends. Text of tweets is only ever text of a node.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const KEPT_POINTS = 300;
const TIMELINE = { width: 600, height: 120 };
const MARKS = ["lost", "failed", "gaps", "reconnects"];
const ACTIONS = { pause: "Pause", resume: "Resume", drain: "Drain and end" };
const RETRY_MILLISECONDS = 2000;
const SILENT_SECONDS = 5;

const token = location.hash.slice(1);
const connection = document.getElementById("connection");
const cards = [];

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function isolated(text, className) {
  const made = element("bdi", text, className);
  made.dir = "auto";
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text; // else a screen reader reads it again
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString();
}

function short(number) {
  return number.toLocaleString(undefined, { maximumFractionDigits: number < 10 ? 1 : 0 });
}

class Card {
  constructor(number) {
    this.number = number;
    this.points = [];
    const template = document.getElementById("card").content.cloneNode(true);
    this.root = template.firstElementChild;
    document.getElementById("cards").append(template);
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  show(values) {
    this.points = this.points.concat(values.points).slice(-KEPT_POINTS);
    const problem = this.find(".problem");
    problem.hidden = !values.problem;
    setText(problem, values.problem || "");
    setText(this.find("h2"), values.name);
    if (values.problem) return;
    this.showState(values);
    this.showButtons(values.actions);
    this.showPicture(values);
    this.showFigures(values.figures);
    this.showTimeline();
    this.showStages(values.stages);
    this.showList(".failures", values.failures, "No failures.");
    this.showList(".batches", values.batches, "No batches since the page was opened.");
    this.showSettings(values.settings);
  }

  showState(values) {
    const state = this.find(".state");
    setText(state, values["is over"] ? `ended: ${values.state}` : values.state);
    const tones = { connected: "good", running: "good", idle: "over", failed: "bad" };
    state.dataset.tone = values["is over"] && values.state !== "failed" ? "over"
      : tones[values.state] || "busy";
  }

  showButtons(actions) {
    const place = this.find(".buttons");
    const shown = token ? actions : [];
    if (place.dataset.shown === shown.join()) return;
    place.dataset.shown = shown.join();
    const hadFocus = place.contains(document.activeElement);
    place.replaceChildren(...shown.map((name) => {
      const button = element("button", ACTIONS[name]);
      button.addEventListener("click", () => this.act(name, button));
      return button;
    }));
    if (hadFocus && place.firstElementChild) place.firstElementChild.focus();
  }

  async act(name, button) {
    if (button.ariaDisabled === "true") return; // a disabled button would lose the focus
    button.ariaDisabled = "true";
    const refused = this.find(".refused");
    setText(refused, "");
    try {
      const address = `cards/${this.number}/${name}`;
      const headers = { "X-Rxtweets-Token": token };
      const answer = await fetch(address, { method: "POST", headers });
      if (!answer.ok) throw new Error(await answer.text());
    } catch (error) {
      setText(refused, `${ACTIONS[name]}: ${error.message}`);
    }
    button.ariaDisabled = String(name === "drain" && !refused.textContent);
  }

  showPicture(values) {
    const place = this.find(".picture");
    const parsed = new DOMParser().parseFromString(values.picture, "image/svg+xml");
    place.setAttribute("aria-label", `Stages of ${values.name}`);
    place.replaceChildren(document.importNode(parsed.documentElement, true));
  }

  showFigures(figures) {
    const place = this.find(".figures");
    if (place.children.length !== figures.length) {
      place.replaceChildren(...figures.map(() => {
        const box = element("div");
        box.append(element("dt"), element("dd"));
        return box;
      }));
    }
    figures.forEach((figure, number) => {
      const box = place.children[number];
      setText(box.firstElementChild, figure.name);
      setText(box.lastElementChild, figure.value);
      box.className = figure["is loss"] ? "loss" : "";
    });
  }

  showTimeline() {
    const { width, height } = TIMELINE;
    const points = this.points;
    const highest = Math.max(1, ...points.map((point) => point.rate));
    const x = (number) => width - (points.length - 1 - number) * (width / (KEPT_POINTS - 1));
    const place = this.find(".timeline svg");
    const drawn = [];
    points.forEach((point, number) => MARKS.forEach((kind, row) => {
      if (!point[kind]) return;
      const line = document.createElementNS(SVG, "line");
      const top = (height / MARKS.length) * row;
      const ends = { x1: x(number), x2: x(number), y1: top, y2: top + height / MARKS.length };
      Object.entries(ends).forEach(([name, value]) => line.setAttribute(name, value));
      line.setAttribute("class", kind);
      const title = document.createElementNS(SVG, "title");
      title.textContent = `${clock(point.at)}: ${short(point[kind])} ${kind}`;
      line.append(title);
      drawn.push(line);
    }));
    const rate = document.createElementNS(SVG, "polyline");
    const y = (point) => (height - 2) * (1 - point.rate / highest) + 1;
    rate.setAttribute("points", points.map((point, number) => `${x(number)},${y(point)}`).join(" "));
    rate.setAttribute("class", "rate");
    place.replaceChildren(...drawn, rate);
    const sums = MARKS.map((kind) => [kind, points.reduce((sum, point) => sum + point[kind], 0)]);
    const losses = sums.filter(([, sum]) => sum).map(([kind, sum]) => `${short(sum)} ${kind}`);
    const now = points.length ? short(points[points.length - 1].rate) : "0";
    const label = [`now ${now} messages per second, at most ${short(highest)}`, ...losses];
    place.setAttribute("aria-label", label.join(", "));
    const [left, right] = this.timeEnds();
    this.find(".axis").replaceChildren(
      element("span", left), element("span", label.join(" · ")), element("span", right),
    );
  }

  timeEnds() {
    const points = this.points;
    if (!points.length) return ["", ""];
    const last = points[points.length - 1].at;
    // The right edge is now, also while there are few points.
    const first = points.length < KEPT_POINTS ? last - (KEPT_POINTS - 1) : points[0].at;
    return [clock(first), clock(last)];
  }

  showStages(stages) {
    const place = this.find(".stages");
    place.hidden = !stages.length;
    place.setAttribute("aria-label", `Table of stages of ${this.find("h2").textContent}`);
    this.find("tbody").replaceChildren(...stages.map((stage) => {
      const row = element("tr");
      const head = element("th", `${stage.kind} `);
      head.scope = "row";
      head.append(isolated(stage.name));
      const running = stage.busy === null ? "" : `${stage.running} of ${stage.concurrency}`;
      const cells = [
        short(stage.rate), running, short(stage.waiting), short(stage.done), short(stage.failed),
      ].map((text) => element("td", text));
      if (stage.failed) cells[4].className = "loss";
      const busy = element("td");
      if (stage.busy !== null) {
        const meter = element("meter");
        meter.value = stage.busy;
        const percent = `${Math.round(stage.busy * 100)} %`;
        meter.setAttribute("aria-label", `busy ${percent}`);
        busy.append(`${percent} `, meter);
      }
      row.append(head, ...cells, busy);
      return row;
    }));
  }

  // Entries that stay are not touched, else the reader would lose a selection in them.
  showList(selector, entries, nothing) {
    const place = this.find(selector);
    const wanted = entries.map((entry) => JSON.stringify(entry));
    [...place.children].forEach((item) => {
      if (!wanted.includes(item.dataset.entry)) item.remove();
    });
    wanted.forEach((written, number) => {
      const here = place.children[number];
      if (here && here.dataset.entry === written) return;
      const isLoss = selector === ".failures" || entries[number]["has failed"];
      const item = this.listItem(entries[number], isLoss);
      item.dataset.entry = written;
      place.insertBefore(item, here || null);
    });
    while (place.children.length > wanted.length) place.lastElementChild.remove();
    if (!wanted.length) place.append(element("li", nothing));
  }

  listItem(entry, isLoss) {
    const item = element("li", "", isLoss ? "loss" : "");
    const said = element("span", `${clock(entry.at)} `, "said");
    said.append(isolated(entry.text));
    item.append(said, ...entry.tweets.map((tweet) => isolated(tweet.text, "tweet")));
    return item;
  }

  showSettings(settings) {
    const place = this.find(".settings");
    const written = JSON.stringify(settings);
    if (place.dataset.shown === written) return;
    place.dataset.shown = written;
    place.replaceChildren(...settings.flatMap(([name, value]) => [
      element("dt", name), element("dd", value),
    ]));
  }
}

function say(text, tone) {
  setText(connection, text);
  connection.dataset.tone = tone;
  document.body.classList.toggle("lost", tone === "bad");
}

let source = null;
let lastSeen = null;
let lastHeard = 0;

function take(moments, isWhole) {
  lastSeen = lastHeard = Date.now() / 1000;
  moments.forEach((values, number) => {
    cards[number] ??= new Card(number);
    if (isWhole) cards[number].points = [];
    cards[number].show(values);
  });
  const over = moments.length > 0 && moments.every((values) => values["is over"]);
  say(over ? "ended" : "live", over ? "over" : "good");
}

function connect() {
  source = new EventSource("moments");
  source.addEventListener("open", () => { lastHeard = Date.now() / 1000; });
  source.addEventListener("whole", (event) => take(JSON.parse(event.data), true));
  source.addEventListener("moment", (event) => take(JSON.parse(event.data), false));
  source.addEventListener("error", reconnect);
}

function reconnect() {
  source.close();
  const since = lastSeen === null ? "" : ` since ${clock(lastSeen)}`;
  say(`no connection${since}: the program has ended, or cannot be reached`, "bad");
  setTimeout(connect, RETRY_MILLISECONDS);
}

// A network that disappears, or a program that hangs, closes no connection.
setInterval(() => {
  const isSilent = Date.now() / 1000 - lastHeard > SILENT_SECONDS;
  if (isSilent && source.readyState === EventSource.OPEN) reconnect();
}, 1000);

connect();
