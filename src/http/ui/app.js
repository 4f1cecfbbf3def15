// The live page: reads one event stream and draws it. No library, no build.
// Names of streams, groups and consumers hold any bytes; they reach the document as text only.

const API = '../api/v1/events/';
const REMEDIATION = '../api/v1/remediation';
const RUNBOOKS = 'https://github.com/streamlag/streamlag/blob/main/docs/runbooks/';
const TOKEN_KEY = 'streamlag.token';
/** Height of a table row in pixels, as in style.css. */
const ROW = 34;
/** Rows drawn above and below what can be seen. */
const SPARE_ROWS = 8;
/** Points kept per group, and for all groups together: what the page saw itself. */
const MOST_POINTS = 720, LEAST_POINTS = 40, ALL_POINTS = 600000;
/** Groups listed at the top. The table has all of them. */
const MOST_PROBLEMS = 5;
/** Milliseconds: the server sends something every 15 s. */
const SILENCE = 40000;
const FIRST_RETRY = 1000, LAST_RETRY = 30000;
/** Seconds of trim headroom that are called near, as in the alert EventConsumerLossNear. */
const LOSS_NEAR = 600;
/** Milliseconds between two reads of a group's consumers. */
const CONSUMERS_EVERY = 5000;
/** What a group's plots show: seconds back, with a point for each step, and seconds ahead of which the first is shown that is forecast. */
const SPANS = { hour: ['An hour', 3600, 15, [3600, 900]], day: ['A day', 86400, 300, [21600, 3600]], week: ['A week', 604800, 1800, [86400, 21600]] };
/** Milliseconds between two reads of a forecast. */
const FORECAST_EVERY = 30000;
/** Losses and changes of state that are told in words: the newest. */
const MOST_MARKS = 8;
/** Milliseconds between two reads of the plans: where remediation is on, and where it is off. */
const PLANS_EVERY = 5000, PLANS_SELDOM = 60000;
/** Plans that are listed, and of those that ended the newest. */
const MOST_PLANS = 20;

const $ = id => document.getElementById(id);
const NUMBER = new Intl.NumberFormat('en-US');
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const DAYTIME = new Intl.DateTimeFormat(undefined, { weekday: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });

// --- what is known -------------------------------------------------------------------------------------------------

/** Groups by key; each is a row of the API with what the page adds: `level`, `points`, `since`. */
const groups = new Map();
/** Groups as the table shows them; null where that has to be found anew. */
let sorted = null;
let head = null;
let token = '';
/** When the page began to look. */
const openedAt = Date.now();
/** When the newest sample was taken, by this browser's clock. */
let sampledAt = 0;
let paused = false;
let view = { target: '', filter: '', show: 'all', sort: 'state', down: true, stream: null, group: null };

const keyOf = row => row.stream + '\u0000' + row.consumer_group;

/** What is wrong with a group: the higher the rank, the worse. From 2 on it needs attention. */
const STATES = {
  losing: [9, 'bad', 'losing', 'EventConsumerLosingEntries'],
  stopped: [7, 'bad', 'stopped', 'EventConsumerGroupStopped'],
  stalled: [6, 'bad', 'stalled', 'EventConsumerGroupStalled'],
  lagging: [5, 'warn', 'lagging', 'EventConsumerGroupLagging'],
  no_group: [4, 'warn', 'no group', 'EventConsumerGroupMissing'],
  rewound: [3, 'warn', 'rewound', 'EventConsumerGroupRewound'],
  ack_stalled: [3, 'warn', 'ack stalled', 'EventConsumerGroupAckStalled'],
};

function judge(row) {
  if (row.error !== undefined || row.state === null) {
    return { rank: 6, level: 'unknown', word: 'unreadable', book: 'EventStreamUnreadable', why: row.error ?? 'the stream could not be read' };
  }
  const near = row.trim_headroom_seconds !== null && row.lag > 0 && row.trim_headroom_seconds < LOSS_NEAR;
  const why = row.state_reason ?? '';
  if (row.state !== 'losing' && near) {
    return { rank: 8, level: 'bad', word: 'loss near', book: 'EventConsumerLossNear', why: `trimming reaches undelivered entries in ${duration(row.trim_headroom_seconds)}; ${why}` };
  }
  const known = STATES[row.state];
  if (known) return { rank: known[0], level: known[1], word: known[2], book: known[3], why };
  if (row.status === 'unhealthy') {
    return { rank: 3, level: 'warn', word: 'high lag', book: 'HighEventConsumerLag', why };
  }
  if (row.dead_consumers_with_pending > 0) {
    const dead = row.dead_consumers_with_pending;
    return { rank: 2, level: 'warn', word: 'dead consumer', book: 'EventConsumerDeadWithPending', why: `${count(dead, 'dead consumer')} with pending entries` };
  }
  if (row.status === 'degraded') return { rank: 1, level: 'warn', word: 'degraded', book: 'HighEventConsumerLag', why };
  return { rank: 0, level: 'ok', word: 'ok', book: null, why };
}

/** The points up to this time: a group that is not told of anew is as it was. */
function until(points, time) {
  const last = points.at(-1);
  return last && last.length > 1 && last[0] < time ? [...points, [time, ...last.slice(1)]] : points;
}

function take(row, time, previous, limit) {
  const key = keyOf(row), before = groups.get(key);
  row.key = key;
  row.seen = judge(row);
  row.points = before ? until(before.points, previous) : [];
  row.text = (row.stream + ' ' + row.consumer_group).toLowerCase();
  // What the server says, else what the page saw. A first sight is no beginning.
  const same = before && before.seen.word === row.seen.word;
  const told = STATES[row.state] && row.state_since ? Date.parse(row.state_since) : NaN;
  row.since = told > 0 ? told : same ? before.since : before ? time : null;
  row.points.push([time, row.lag < 0 || row.group_exists === false ? null : row.lag, row.lag_min, row.lag_max, row.added_per_second, row.delivered_per_second, row.pending, row.lost_entries, row.state]);
  if (row.points.length > limit) row.points.splice(0, row.points.length - limit);
  groups.set(key, row);
}

/** Ends every line where it is: what comes next was not seen. */
function gap() {
  for (const row of groups.values()) {
    row.points = until(row.points, sampledAt);
    if (row.points.at(-1)?.length > 1) row.points.push([Date.now()]);
  }
}

function receive(message) {
  if (message.type === 'incident') return receiveIncidents(message);
  if (message.type === 'snapshot') {
    const alive = new Set(message.groups.map(keyOf));
    for (const key of groups.keys()) if (!alive.has(key)) groups.delete(key);
  } else if (message.type !== 'update') return;
  const age = message.age_seconds ?? 0, previous = sampledAt;
  sampledAt = Date.now() - age * 1000;
  head = message;
  const limit = Math.max(LEAST_POINTS, Math.min(MOST_POINTS, Math.floor(ALL_POINTS / Math.max(1, groups.size))));
  for (const row of message.groups) take(row, sampledAt, previous, limit);
  for (const row of message.gone ?? []) groups.delete(keyOf(row));
  sorted = null;
  draw();
  readPlans();
}

// --- numbers as people read them -----------------------------------------------------------------------------------

const count = (n, what) => `${NUMBER.format(n)} ${what}${n === 1 ? '' : 's'}`;

function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 360) / 10} h`;
  return `${Math.round(seconds / 8640) / 10} d`;
}

function amount(value) {
  if (value === null || value === undefined) return '–';
  if (value !== 0 && Math.abs(value) < 10) return String(Math.round(value * 100) / 100);
  return NUMBER.format(Math.round(value));
}

function lag(row) {
  if (row.lag < 0) return 'unknown';
  if (row.group_exists === false) return 'missing';
  if (row.lag_quality !== 'bounded') return NUMBER.format(row.lag);
  return `${NUMBER.format(row.lag_min)} to ${NUMBER.format(row.lag_max)}`;
}

/** What happens next: entries are lost, or the group has caught up. */
function next(row) {
  if (row.lag > 0 && row.trim_headroom_seconds !== null && (row.drain_seconds === null || row.trim_headroom_seconds < row.drain_seconds)) {
    return ['loss in ' + duration(row.trim_headroom_seconds), row.trim_headroom_seconds];
  }
  if (row.lag > 0 && row.drain_seconds !== null) return ['drained in ' + duration(row.drain_seconds), row.drain_seconds];
  return [row.lag > 0 ? 'not draining' : '–', row.lag > 0 ? 1e12 : 1e13];
}

function since(row) {
  if (row.since === null) return `since before ${CLOCK.format(openedAt)}`;
  return `since ${CLOCK.format(row.since)}, ${duration(Math.max(0, (Date.now() - row.since) / 1000))} ago`;
}

// --- the document --------------------------------------------------------------------------------------------------

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function svg(name, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  return made;
}

/** Sets text only where it differs; whether it did. */
function say(node, text) {
  if (node.textContent === text) return false;
  node.textContent = text;
  return true;
}

function level(node, value) {
  if (node.dataset.level !== value) node.dataset.level = value;
}

function stateWord(seen) {
  const word = element('span', { class: 'word', 'data-level': seen.level });
  word.append(element('span', { class: 'mark', 'aria-hidden': 'true' }), seen.word);
  return word;
}

function runbook(name, text) {
  return element('a', { href: `${RUNBOOKS}${name}.md`, target: '_blank', rel: 'noopener noreferrer' }, text);
}

const linkTo = row => '#' + new URLSearchParams({ ...(view.target && { target: view.target }), stream: row.stream, group: row.consumer_group });

let frame = 0;
function draw() {
  if (!frame) frame = requestAnimationFrame(() => { frame = 0; drawNow(); });
}

function drawNow() {
  const seen = head !== null && $('login').hidden;
  const detail = view.stream !== null;
  $('verdict').hidden = !seen;
  $('overview').hidden = !seen || detail;
  $('detail').hidden = !seen || !detail;
  if (!seen) $('incidents').hidden = $('remediation').hidden = true;
  if (!seen) return;
  drawTargets();
  drawVerdict();
  drawIncidents(detail);
  drawPlans();
  if (detail) drawDetail(); else { drawProblems(); drawStates(); drawTable(); }
}

function drawTargets() {
  const targets = head.targets ?? [], box = $('target');
  $('target-box').hidden = targets.length < 2;
  const wanted = targets.map(target => target.name + (target.status === 'healthy' ? '' : `: ${target.status}`));
  if ([...box.options].map(option => option.textContent).join('\n') !== wanted.join('\n')) {
    box.replaceChildren(...targets.map((target, at) => element('option', { value: target.name }, wanted[at])));
  }
  if (box.value !== head.target) box.value = head.target;
}

function problems() {
  const found = [];
  for (const row of groups.values()) if (row.seen.rank >= 2) found.push(row);
  return found.sort((a, b) => b.seen.rank - a.seen.rank || b.lag - a.lag || compare(a.key, b.key));
}

function drawVerdict() {
  const found = problems();
  const others = (head.targets ?? []).filter(target => target.name !== head.target && target.status !== 'healthy');
  let text, worst = 'ok', more = '';
  if (!head.redis_connected) {
    [text, worst] = ['Redis does not answer', 'bad'];
    more = head.error ?? '';
  } else if (found.length > 0) {
    const words = new Map();
    for (const row of found) words.set(row.seen.word, (words.get(row.seen.word) ?? 0) + 1);
    worst = found.some(row => row.seen.level === 'bad') ? 'bad' : 'warn';
    text = `${NUMBER.format(found.length)} of ${count(groups.size, 'group')} need${found.length === 1 ? 's' : ''} attention: ` +
      [...words].map(([word, n]) => `${NUMBER.format(n)} ${word}`).join(', ');
    more = head.error ?? '';
  } else if (head.error) {
    [text, worst, more] = ['Not everything is watched', 'warn', head.error];
  } else if (groups.size === 0) {
    [text, worst] = ['No group is monitored', 'unknown'];
  } else {
    text = groups.size === 1 ? 'The group is well' : `All ${NUMBER.format(groups.size)} groups are well`;
    const firing = openIncidents().filter(one => one.status === 'firing');
    if (firing.length > 0) {
      [more, worst] = [`${count(firing.length, 'incident')} not over yet`, 'warn'];
    }
  }
  if (openIncidents().some(one => one.status === 'firing' && one.severity === 'critical')) worst = 'bad';
  if (others.length > 0) {
    if (worst === 'ok') worst = 'warn';
    more = [more, `Other targets: ${others.map(target => `${target.name} ${target.status}`).join(', ')}`].filter(Boolean).join(' · ');
  }
  level($('verdict'), worst);
  say($('verdict-text'), text);
  say($('verdict-more'), more);
  if (!head.redis_connected) $('verdict-more').append(more ? ' · ' : '', runbook('StreamlagRedisDown', 'What to do'));
  const title = `${found.length > 0 || worst === 'bad' ? '(!) ' : ''}streamlag`;
  if (document.title !== title) document.title = title;
}

function drawProblems() {
  const told = new Set(openIncidents().map(subjectOf));
  const found = problems().filter(row => !told.has(row.key)), list = $('problems');
  const shown = found.slice(0, MOST_PROBLEMS);
  while (list.children.length > shown.length) list.lastChild.remove();
  shown.forEach((row, at) => {
    const print = [row.key, row.seen.word, row.seen.why, since(row)].join('\n');
    let item = list.children[at];
    if (item && item.print === print) return;
    // The link that has the focus stays, whatever its row says now.
    if (!item || item.key !== row.key) {
      const made = element('li');
      item ? item.replaceWith(made) : list.append(made);
      item = made;
      item.key = row.key;
      item.state = element('span'); item.since = element('span', { class: 'since' }); item.why = element('span', { class: 'why' });
      item.link = element('a', { href: linkTo(row) }, `${row.stream} / ${row.consumer_group}`);
      item.book = runbook('README', 'What to do');
      item.append(item.state, element('span', { class: 'name' }, item.link, item.since), item.why, item.book);
    }
    item.print = print;
    item.state.replaceChildren(stateWord(row.seen));
    item.dataset.level = row.seen.level;
    say(item.since, since(row));
    say(item.why, row.seen.why);
    item.book.href = `${RUNBOOKS}${row.seen.book}.md`;
    item.book.setAttribute('aria-label', `What to do: ${row.seen.word}, ${row.stream} / ${row.consumer_group}`);
  });
}

// --- incidents -----------------------------------------------------------------------------------------------------

/** Incidents by identity, as the API has them. */
const incidents = new Map();
let incidentsLeftOut = 0;
/** Things with incidents that are listed, open and resolved ones each. */
const MOST_INCIDENTS = 20;
const SEVERITIES = { critical: 'bad', warning: 'warn', info: 'unknown' };

function receiveIncidents(message) {
  if (message.all) incidents.clear();
  for (const one of message.incidents) incidents.set(one.id, one);
  for (const id of message.gone) incidents.delete(id);
  incidentsLeftOut = message.left_out;
  draw();
}

/** What an incident is about: the key of its group, where it has one. */
const subjectOf = one => one.stream === null ? `\u0001${one.node ?? ''}` : keyOf(one);
const nameOf = one => one.stream !== null ? [one.stream, one.consumer_group].filter(Boolean).join(' / ') : one.node ?? `Redis of ${one.redis_target}`;

const severityOf = one => Object.keys(SEVERITIES).indexOf(one.severity);
const byGravity = (a, b) => (a.status === 'pending') - (b.status === 'pending') || severityOf(a) - severityOf(b) || compare(a.active_since, b.active_since) || compare(a.id, b.id);
const openIncidents = () => [...incidents.values()].filter(one => one.status !== 'resolved').sort(byGravity);
const resolvedIncidents = () => [...incidents.values()].filter(one => one.status === 'resolved').sort((a, b) => -compare(a.resolved_at, b.resolved_at));

/** By what they are about, the gravest first: one stopped group is one line, whatever else is wrong with it. */
function bySubject(list) {
  const lines = new Map();
  for (const one of list) {
    const key = subjectOf(one), line = lines.get(key);
    if (line) line.others.push(one); else lines.set(key, { key, one, others: [] });
  }
  return [...lines.values()];
}

function drawIncidents(detail) {
  const open = openIncidents(), over = resolvedIncidents();
  $('incidents').hidden = detail || open.length + over.length + incidentsLeftOut === 0;
  if ($('incidents').hidden) return;
  const words = Object.keys(SEVERITIES).map(severity => [severity, open.filter(one => one.severity === severity).length]).filter(([, n]) => n > 0);
  const parts = words.map(([severity, n]) => `${NUMBER.format(n)} ${severity}`).join(', ');
  const more = incidentsLeftOut > 0 ? `, and ${NUMBER.format(incidentsLeftOut)} more` : '';
  say($('incidents-title'), open.length === 0 ? '' : `${count(open.length, 'open incident')}: ${parts}${more}`);
  fillIncidents($('open-incidents'), bySubject(open));
  $('resolved-box').hidden = over.length === 0;
  say($('resolved-title'), `${count(over.length, 'incident')} resolved in the last 15 minutes`);
  fillIncidents($('resolved-incidents'), bySubject(over));
}

function fillIncidents(list, lines) {
  const shown = lines.slice(0, MOST_INCIDENTS);
  // A line stays with what it is about, so that the focus does too.
  const free = new Map([...list.children].map(item => [item.key, item]));
  shown.forEach((line, at) => {
    const item = free.get(line.key) ?? makeIncident(line);
    free.delete(line.key);
    if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null);
    fillIncident(item, line);
  });
  for (const item of free.values()) item.remove();
  if (lines.length > shown.length) list.append(Object.assign(element('li', { class: 'more' }, `and ${NUMBER.format(lines.length - shown.length)} more`), { key: null }));
}

function makeIncident({ key, one }) {
  const item = element('li');
  item.key = key;
  const line = cls => element('span', { class: `line ${cls}` });
  [item.state, item.since, item.rule, item.why, item.others, item.told] = [element('span'), line('since'), element('b'), line('reason'), line('others'), line('told')];
  // A group has a page of its own; a stream is a filter.
  const to = one.consumer_group !== null ? linkTo(one) : one.stream !== null ? address({ ...view, filter: one.stream }) : null;
  item.name = to ? element('a', { href: to }, nameOf(one)) : element('b', null, nameOf(one));
  item.book = element('a', { target: '_blank', rel: 'noopener noreferrer' }, 'What to do');
  item.append(item.state, element('span', { class: 'name' }, item.name, item.since), element('span', { class: 'why' }, item.rule, item.why, item.others, item.told), item.book);
  return item;
}

function fillIncident(item, { one, others }) {
  const over = one.status === 'resolved', mark = over ? 'ok' : SEVERITIES[one.severity];
  level(item, mark);
  const word = over ? 'resolved' : one.status === 'pending' ? `${one.severity}, pending` : one.severity;
  if (item.word !== word) item.state.replaceChildren(stateWord({ level: mark, word }));
  item.word = word;
  const began = Date.parse(one.active_since), ended = Date.parse(one.resolved_at);
  say(item.since, over ? `resolved ${CLOCK.format(ended)}, after ${duration(Math.max(0, ended - began) / 1000)}` : `since ${CLOCK.format(began)}, ${duration(Math.max(0, Date.now() - began) / 1000)} ago`);
  say(item.rule, `${one.rule}: ${one.summary}`);
  say(item.why, one.evidence.state_reason ?? one.description);
  say(item.others, others.length > 0 ? `also ${others.map(other => other.rule).join(', ')}` : '');
  const [told, wrong] = toldOf(one);
  say(item.told, told);
  item.told.classList.toggle('bad', wrong);
  // Only what leads to a page is a link: the address is the rule's, and the server has it from its own file.
  if (/^https:\/\//.test(one.runbook_url)) item.book.href = one.runbook_url;
  item.book.setAttribute('aria-label', `What to do: ${one.rule}, ${nameOf(one)}`);
}

/** Who knows of it, and whether somebody should who does not. */
function toldOf({ status, delivery }) {
  if (delivery.length === 0) return ['', false];
  const knows = status === 'resolved' ? 'resolved' : 'firing';
  const told = delivery.filter(one => one.told === knows).length;
  const what = status === 'resolved' ? 'end told to' : 'told to';
  const failed = delivery.filter(one => one.told !== knows && one.error !== null);
  const whom = delivery.length === 1 ? delivery[0].receiver : `${NUMBER.format(told)} of ${NUMBER.format(delivery.length)} receivers`;
  const text = delivery.length === 1 && told === 0 ? `not told to ${whom} yet` : `${what} ${whom}`;
  return [[text, ...failed.map(one => `${one.receiver} ${one.outcome}: ${one.error}`)].join('; '), failed.length > 0];
}

// --- plans ---------------------------------------------------------------------------------------------------------

/** The newest answer about plans; null before the first. */
let plans = null, plansRead = 0, plansTrouble = '', arePlansAsked = false;
/** The plan that is decided on at the moment, and what the dialog is about. */
let deciding = null, confirming = null;
const OUTCOMES = { done: 'ok', refused: 'warn', failed: 'bad', unknown: 'bad', rejected: 'unknown', expired: 'unknown', void: 'unknown' };

async function readPlans() {
  if (arePlansAsked || !connection || !head || Date.now() - plansRead < (plans?.enabled ? PLANS_EVERY : PLANS_SELDOM)) return;
  [arePlansAsked, plansRead] = [true, Date.now()];
  const by = token;
  try {
    const answer = await fetch(REMEDIATION, { headers: headers('application/json'), cache: 'no-store' });
    const [trouble, found] = answer.ok ? ['', await answer.json()] : [await problem(answer), plans];
    if (by === token) [plansTrouble, plans] = [trouble, found];
    draw();
  } catch {
    // The stream tells of a server that is gone.
  } finally {
    arePlansAsked = false;
  }
}

const isShown = plan => plan.redis_target === head.target && (view.stream === null || (plan.stream === view.stream && plan.consumer_group === view.group));

function drawPlans() {
  $('remediation').hidden = !plans?.enabled;
  if (plans === null || !plans.enabled) return $('confirm').close();
  const open = plans.plans.filter(isShown), over = plans.history.filter(isShown);
  const elsewhere = plans.plans.filter(plan => plan.redis_target !== head.target).length;
  say($('remediation-title'), open.length === 0 ? 'No remediation plan' : count(open.length, 'remediation plan'));
  say($('remediation-note'), [
    plansTrouble && `The plans could not be read: ${plansTrouble}`,
    plans.stopped && `Nothing is carried out: ${plans.stopped}`,
    elsewhere > 0 && `${count(elsewhere, 'plan')} at other targets`,
    open.length > 0 && !plans.may_decide && 'To approve or reject takes a token with scope:remediate',
  ].filter(Boolean).join(' · '));
  fillPlans($('plans'), open, makePlan, fillPlan);
  $('acts-box').hidden = over.length === 0;
  if (over.length > 0) say($('acts-title'), `${count(over.length, 'plan')} ended, the newest at ${CLOCK.format(Date.parse(over[0].ended_at))}: ${wordsOf(over[0].action)} ${over[0].outcome}`);
  fillPlans($('acts'), over, makePlan, fillAct);
  drawConfirm();
}

function fillPlans(list, all, make, fill) {
  const shown = all.slice(0, MOST_PLANS), free = new Map([...list.children].map(item => [item.key, item]));
  shown.forEach((plan, at) => {
    const item = free.get(plan.id) ?? make(plan);
    free.delete(plan.id);
    if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null);
    fill(item, plan);
  });
  for (const item of free.values()) {
    const had = item.contains(document.activeElement);
    item.remove();
    // The keyboard stays where it was, though what it was at has gone.
    if (had) $('remediation-title').focus({ preventScroll: true });
  }
  if (all.length > shown.length) list.append(Object.assign(element('li', { class: 'more' }, `and ${NUMBER.format(all.length - shown.length)} more`), { key: null }));
}

function makePlan(plan) {
  const item = element('li'), line = cls => element('span', { class: `line ${cls}` });
  item.key = plan.id;
  [item.state, item.when, item.what, item.why, item.keeps, item.who] = [element('span'), line('since'), element('b'), line('reason'), line('keeps'), line('who')];
  item.buttons = element('span', { class: 'buttons' });
  item.append(item.state, element('span', { class: 'name' }, element('a', { href: linkTo(plan) }, `${plan.stream} / ${plan.consumer_group}`), item.when),
    element('span', { class: 'why' }, item.what, item.why, item.keeps, item.who), item.buttons);
  return item;
}

function planState(item, mark, word) {
  level(item, mark);
  if (item.word !== word) item.state.replaceChildren(stateWord({ level: mark, word }));
  item.word = word;
}

const wordsOf = name => name.replaceAll('_', ' ');
const mayApprove = plan => plans.may_decide && plan.mode !== 'plan' && !plan.approved_by.includes(plans.token);

function fillPlan(item, plan) {
  const left = Math.max(0, Date.parse(plan.expires_at) - Date.now()) / 1000;
  planState(item, 'warn', wordsOf(plan.action));
  say(item.when, `planned ${CLOCK.format(Date.parse(plan.made_at))} by streamlag, mode ${plan.mode}; expires in ${duration(left)}`);
  say(item.what, sentence(plan.what));
  say(item.why, `Why: ${plan.why}`);
  say(item.keeps, `Changes: ${plan.changes} · Does not change: ${plan.keeps}`);
  const approved = plan.approved_by.length > 0 ? `approved by ${plan.approved_by.join(', ')}; ` : '';
  say(item.who, deciding === plan.id ? 'Decided, waiting for the outcome' : sentence(approved + (plan.waits_for === null ? 'about to be carried out' : `waits for ${plan.waits_for}`)));
  const words = plans.may_decide ? [mayApprove(plan) && 'Approve', 'Reject'].filter(Boolean) : [];
  if ([...item.buttons.children].map(button => button.value).join() !== words.join()) {
    item.buttons.replaceChildren(...words.map(word => element('button', { type: 'button', value: word, 'aria-label': `${word}: ${plan.what}` }, word)));
  }
  for (const button of item.buttons.children) button.setAttribute('aria-disabled', String(deciding !== null));
}

function fillAct(item, plan) {
  planState(item, OUTCOMES[plan.outcome] ?? 'unknown', `${wordsOf(plan.action)} ${plan.outcome}`);
  const by = plan.by.length > 0 ? `, decided by ${plan.by.join(', ')}` : '';
  say(item.when, `${CLOCK.format(Date.parse(plan.ended_at))}${by}`);
  say(item.what, sentence(plan.what));
  say(item.why, [plan.changed > 0 && `${NUMBER.format(plan.changed)} changed`, plan.detail].filter(Boolean).join('; '));
}

const sentence = text => text === '' ? '' : text[0].toUpperCase() + text.slice(1);

/** Asks before anything is carried out. The dialog gives the focus back to the button that opened it. */
function confirmPlan(plan) {
  confirming = plan;
  const facts = [['Why', plan.why], ['Changes', plan.changes], ['Does not change', plan.keeps], ['Redis', plan.redis_target]];
  say($('confirm-what'), `${sentence(plan.what)}.`);
  $('confirm-facts').replaceChildren(...facts.flatMap(([name, text]) => [element('dt', null, name), element('dd', null, text)]));
  drawConfirm();
  $('confirm').showModal();
}

function drawConfirm() {
  if (confirming === null) return;
  const isThere = plans.plans.some(plan => plan.id === confirming.id);
  say($('confirm-gone'), isThere ? '' : 'This plan is gone: it has ended, or what it rested on has changed.');
  $('confirm-yes').setAttribute('aria-disabled', String(!isThere));
}

async function decide(plan, word) {
  if (deciding !== null) return;
  deciding = plan.id;
  draw();
  const place = `${wordsOf(plan.action)}, ${plan.stream} / ${plan.consumer_group}`;
  let mark = 'bad', text = 'no answer; what became of it is among the plans that ended, once the server answers again';
  try {
    // The token goes in a header of its own, which no other page can send.
    const answer = await fetch(`${REMEDIATION}/${encodeURIComponent(plan.id)}/${word}`, { method: 'POST', headers: headers('application/json'), cache: 'no-store' });
    if (answer.ok) {
      const { outcome, changed, detail } = await answer.json();
      mark = outcome === 'approved_once' ? 'warn' : OUTCOMES[outcome] ?? 'unknown';
      text = [wordsOf(outcome) + (outcome === 'done' ? `, ${NUMBER.format(changed)} changed` : ''), detail].filter(Boolean).join(': ');
    } else {
      [mark, text] = ['warn', `${answer.status}, ${await problem(answer)}`];
    }
  } catch {
    // It is not known whether it arrived.
  }
  [deciding, plansRead] = [null, 0];
  const box = $('decided');
  level(box, mark);
  box.replaceChildren(element('span', { class: 'mark', 'aria-hidden': 'true' }), `${CLOCK.format(Date.now())} ${sentence(word)} ${place}: ${text}`);
  draw();
  if (document.activeElement === document.body || $('remediation').contains(document.activeElement)) box.focus({ preventScroll: true });
  readPlans();
}

function startPlans() {
  $('plans').addEventListener('click', event => {
    const button = event.target.closest('button'), id = button?.closest('li').key;
    const plan = plans.plans.find(plan => plan.id === id);
    if (!plan || deciding !== null) return;
    button.value === 'Approve' ? confirmPlan(plan) : decide(plan, 'reject');
  });
  $('confirm-no').addEventListener('click', () => $('confirm').close());
  $('confirm-yes').addEventListener('click', event => {
    if (event.target.getAttribute('aria-disabled') === 'true') return;
    const plan = confirming;
    $('confirm').close();
    decide(plan, 'approve');
  });
  $('confirm').addEventListener('close', () => {
    confirming = null;
    // A button that has gone cannot have it back.
    if (!$('remediation').contains(document.activeElement)) $('remediation-title').focus({ preventScroll: true });
  });
}

function drawStates() {
  const counts = new Map([['all', groups.size], ['problems', 0]]);
  for (const row of groups.values()) {
    if (row.seen.rank >= 2) counts.set('problems', counts.get('problems') + 1);
    counts.set(row.seen.word, (counts.get(row.seen.word) ?? 0) + 1);
  }
  if (!counts.has(view.show)) counts.set(view.show, 0);
  const box = $('states'), words = [...counts.keys()];
  if ([...box.children].map(button => button.value).join('\n') !== words.join('\n')) {
    const focus = document.activeElement?.parentNode === box ? document.activeElement.value : null;
    box.replaceChildren(...words.map(word => element('button', { type: 'button', value: word })));
    if (focus !== null) [...box.children].find(button => button.value === focus)?.focus();
  }
  for (const button of box.children) {
    say(button, `${button.value} ${NUMBER.format(counts.get(button.value))}`);
    button.setAttribute('aria-pressed', String(button.value === view.show));
  }
  say($('count'), shownRows().length === groups.size ? count(shownRows().length, 'group') : `${NUMBER.format(shownRows().length)} of ${count(groups.size, 'group')}`);
}

// --- the table -----------------------------------------------------------------------------------------------------

const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0;
const orLeast = value => value ?? -1;

/** Columns: name, heading, class of the heading, what to sort by, text. */
const COLUMNS = [
  ['state', 'State', 'c-state', row => row.seen.rank, null],
  ['stream', 'Stream', '', row => row.stream, row => row.stream],
  ['group', 'Group', '', row => row.consumer_group, row => row.consumer_group],
  ['lag', 'Lag', 'c-lag n', row => row.lag, lag],
  ['behind', 'Behind', 'c-behind n', row => orLeast(row.lag_seconds), row => duration(row.lag_seconds)],
  ['trend', 'Lag so far', 'c-trend', null, null],
  ['in', 'In/s', 'c-rate n', row => orLeast(row.added_per_second), row => amount(row.added_per_second)],
  ['out', 'Out/s', 'c-rate n', row => orLeast(row.delivered_per_second), row => amount(row.delivered_per_second)],
  ['next', 'Next', 'c-next n', row => -next(row)[1], row => next(row)[0]],
  ['pending', 'Pending', 'c-pending n', row => orLeast(row.pending), row => amount(row.pending)],
];

function order() {
  const words = view.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = [];
  for (const row of groups.values()) {
    if (view.show === 'problems' ? row.seen.rank < 2 : view.show !== 'all' && row.seen.word !== view.show) continue;
    if (words.every(word => row.text.includes(word))) shown.push(row);
  }
  const by = COLUMNS.find(column => column[0] === view.sort)?.[3] ?? COLUMNS[0][3], sign = view.down ? -1 : 1;
  return shown.sort((a, b) => sign * compare(by(a), by(b)) || b.lag - a.lag || compare(a.key, b.key));
}

const shownRows = () => sorted ??= order();

function makeColumns() {
  for (const [name, heading, cls, by] of COLUMNS) {
    const cell = element('th', { scope: 'col', class: cls, 'data-sort': name });
    cell.append(by ? element('button', { type: 'button' }, heading) : heading);
    $('columns').append(cell);
  }
}

/** The row that the keyboard is at: the key of its group. */
let current = null;
const pool = [];
const before = element('tr', { class: 'space', 'aria-hidden': 'true' }, element('td', { colspan: COLUMNS.length }));
const after = element('tr', { class: 'space', 'aria-hidden': 'true' }, element('td', { colspan: COLUMNS.length }));

function makeRow() {
  const tr = element('tr');
  tr.cells_ = COLUMNS.map(([name, , cls]) => {
    const cell = element('td', { class: /\bn\b/.test(cls) ? 'n' : null, 'data-column': name });
    if (name === 'stream') cell.append(tr.link = element('a', { tabindex: '-1' }));
    if (name === 'trend') {
      const plot = svg('svg', { class: 'spark', viewBox: '0 0 100 24', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
      plot.append(tr.spark = svg('path'));
      cell.append(plot);
    }
    tr.append(cell);
    return cell;
  });
  return tr;
}

function fill(tr, row, index) {
  const other = tr.key !== row.key;
  tr.key = row.key;
  tr.setAttribute('aria-rowindex', index + 2);
  COLUMNS.forEach(([name, , , , text], at) => {
    const cell = tr.cells_[at];
    if (name === 'state') {
      if (other || tr.word !== row.seen.word || tr.level !== row.seen.level) cell.replaceChildren(stateWord(row.seen));
      [tr.word, tr.level] = [row.seen.word, row.seen.level];
      cell.title = row.seen.why;
    } else if (name === 'trend') {
      tr.spark.setAttribute('d', sparkline(until(row.points, sampledAt)));
    } else {
      const value = text(row);
      const changed = say(name === 'stream' ? tr.link : cell, value);
      if (other) { if (name === 'stream' || name === 'group') cell.title = value; }
      // Ages change with every sample: that is no news.
      if (name === 'lag' || name === 'pending') flash(cell, changed && !other);
    }
  });
  if (other) tr.link.href = linkTo(row);
  tr.link.tabIndex = row.key === current ? 0 : -1;
}

function flash(cell, on) {
  cell.classList.remove('changed');
  if (!on) return;
  void cell.offsetWidth;
  cell.classList.add('changed');
}

function drawTable() {
  const box = $('scroll'), body = $('rows');
  if (before.parentNode !== body) body.replaceChildren(before, after);
  for (const cell of $('columns').children) {
    const is = cell.dataset.sort === view.sort;
    is ? cell.setAttribute('aria-sort', view.down ? 'descending' : 'ascending') : cell.removeAttribute('aria-sort');
  }
  $('groups').setAttribute('aria-rowcount', shownRows().length + 1);
  if (!shownRows().some(row => row.key === current)) current = shownRows()[0]?.key ?? null;
  const height = box.clientHeight || innerHeight;
  const first = Math.max(0, Math.min(Math.floor(box.scrollTop / ROW) - SPARE_ROWS, shownRows().length));
  const last = Math.min(shownRows().length, Math.ceil((box.scrollTop + height) / ROW) + SPARE_ROWS);
  const shown = shownRows().slice(first, last);
  // A row stays with its group as long as the group can be seen, so that the focus does too.
  const free = new Map(pool.map(tr => [tr.key, tr]));
  const kept = shown.map(row => { const tr = free.get(row.key); free.delete(row.key); return tr; });
  const rest = [...free.values()];
  pool.length = 0;
  let place = before;
  shown.forEach((row, at) => {
    const tr = kept[at] ?? rest.pop() ?? makeRow();
    fill(tr, row, first + at);
    // Moved only where it stands elsewhere: moving takes the focus away.
    if (place.nextSibling !== tr) place.after(tr);
    place = tr;
    pool.push(tr);
  });
  for (const tr of rest) tr.remove();
  before.firstChild.style.height = `${first * ROW}px`;
  after.firstChild.style.height = `${(shownRows().length - last) * ROW}px`;
}

function moveTo(index) {
  const at = Math.max(0, Math.min(index, shownRows().length - 1)), box = $('scroll');
  if (shownRows().length === 0) return;
  current = shownRows()[at].key;
  const top = at * ROW, headHeight = $('columns').offsetHeight;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + ROW + headHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW + headHeight - box.clientHeight;
  drawTable();
  pool.find(tr => tr.key === current)?.link.focus({ preventScroll: true });
}

function keys(event) {
  const here = shownRows().findIndex(row => row.key === current), page = Math.max(1, Math.floor($('scroll').clientHeight / ROW) - 2);
  const inRow = event.target.closest('#rows') !== null;
  const to = { ArrowDown: inRow ? here + 1 : 0, ArrowUp: here - 1, PageDown: here + page, PageUp: here - page, Home: 0, End: shownRows().length - 1 }[event.key];
  if (to === undefined || event.ctrlKey || event.metaKey || event.altKey || (!inRow && event.key !== 'ArrowDown')) return;
  event.preventDefault();
  moveTo(to);
}

// --- plots ---------------------------------------------------------------------------------------------------------

/** Points as lines of [x, y]; a point without a value ends one. */
function lines(points, at, x, y) {
  const all = [];
  let line = null;
  for (const point of points) {
    const value = point[at];
    if (value === null || value === undefined) { line = null; continue; }
    if (!line) all.push(line = []);
    line.push([x(point[0]), y(value)]);
  }
  return all;
}

const path = line => 'M' + line.map(([x, y]) => `${Math.round(x * 10) / 10} ${Math.round(y * 10) / 10}`).join('L') + (line.length === 1 ? 'h1' : '');

function sparkline(points) {
  if (points.length === 0) return '';
  const from = points[0][0], span = Math.max(1, points.at(-1)[0] - from);
  let most = 1;
  for (const point of points) if (point[1] > most) most = point[1];
  return lines(points, 1, t => (t - from) / span * 98 + 1, v => 22.5 - v / most * 21).map(path).join('');
}

/** A plot with its heading: [[class, column of the points, name]…], the columns of a band, and whether what is forecast is drawn. */
function makePlot(title, series, band, looksAhead) {
  const figure = element('figure'), caption = element('figcaption'), now = element('span', { class: 'now' });
  caption.append(element('b', null, title));
  if (series.length > 1) for (const [cls, , name] of series) caption.append(element('span', null, element('span', { class: `key ${cls}`, 'aria-hidden': 'true' }), name));
  caption.append(now);
  const top = element('div', { class: 'scale' }), bottom = element('div', { class: 'scale' });
  const plot = svg('svg', { class: 'plot', viewBox: '0 0 600 130', preserveAspectRatio: 'none', role: 'img' });
  figure.append(caption, top, plot, bottom);
  let pointer = null;
  const draw = points => {
    const seen = points.filter(point => point.length > 1);
    if (seen.length === 0) return;
    const ahead = looksAhead ? whatIsAhead(seen.at(-1)) : [];
    const from = points[0][0], till = (ahead.at(-1) ?? points.at(-1))[0], span = Math.max(1, till - from);
    let most = 0;
    for (const point of ahead) if (point[3] > most) most = point[3];
    const columns = [...series.map(([, at]) => at), ...(band ? [band[1]] : [])];
    for (const point of seen) for (const at of columns) if (point[at] > most) most = point[at];
    most = most || 1;
    const x = time => (time - from) / span * 600, y = value => 127 - value / most * 122;
    const drawn = [svg('path', { class: 'axis', d: 'M0 127H600' })];
    if (band) {
      const low = lines(points, band[0], x, y), high = lines(points, band[1], x, y);
      high.forEach((line, at) => { if (low[at]) drawn.push(svg('path', { class: 'band', d: path([...line, ...low[at].reverse()]) + 'Z' })); });
    }
    for (const [cls, at] of series) drawn.push(svg('path', { class: cls, d: lines(points, at, x, y).map(path).join('') }));
    drawn.push(...drawMarks(points, x), ...drawAhead(ahead, x, y));
    const near = pointer === null ? seen.at(-1) : seen.reduce((best, point) => Math.abs(x(point[0]) - pointer) < Math.abs(x(best[0]) - pointer) ? point : best);
    if (pointer !== null) drawn.push(svg('path', { class: 'cursor', d: `M${x(near[0])} 0V127` }));
    plot.replaceChildren(...drawn);
    const values = series.map(([, at, name]) => `${series.length > 1 ? name + ' ' : ''}${amount(near[at])}`).join(', ');
    const bounds = band && near[band[0]] !== near[band[1]] ? ` (${amount(near[band[0]])} to ${amount(near[band[1]])})` : '';
    say(now, `${moment(near[0])}: ${values}${bounds}`);
    top.replaceChildren(element('span', null, amount(most)));
    bottom.replaceChildren(element('span', null, moment(from)), element('span', null, moment(till)));
    const last = ahead.at(-1), then = last ? `, at the end ${amount(last[1])} to ${amount(last[3])} expected` : '';
    plot.setAttribute('aria-label', `${title} from ${moment(from)} to ${moment(till)}: at most ${amount(most)}, last ${values}${bounds}${then}`);
  };
  let last = [];
  const redraw = points => draw(last = points);
  plot.addEventListener('pointermove', event => { pointer = event.offsetX / plot.clientWidth * 600; draw(last); });
  plot.addEventListener('pointerleave', () => { pointer = null; draw(last); });
  return { figure, redraw };
}

/** A time on an axis: of a day or more, with the weekday. */
const moment = time => (span === 'hour' ? CLOCK : DAYTIME).format(time);

/** Losses and changes of state between points, with their times. */
function marksOf(points) {
  const found = [];
  let last = null;
  for (const point of points) {
    if (point.length < 9) continue;
    const [time, lost, state] = [point[0], point[7], point[8]];
    if (last && last[7] !== null && lost > last[7]) found.push([time, 'loss', `${amount(lost - last[7])} lost`]);
    if (last && last[8] !== null && state !== null && state !== last[8]) found.push([time, 'turn', state.replace('_', ' ')]);
    last = point;
  }
  return found;
}

/** A loss is a line over the whole height, a change of state a short one at the foot. */
function drawMarks(points, x) {
  return marksOf(points).map(([time, kind, text]) => {
    const mark = svg('path', { class: kind, d: `M${Math.round(x(time) * 10) / 10} 127v${kind === 'loss' ? -122 : -14}` });
    const title = svg('title');
    title.textContent = `${moment(time)}: ${text}`;
    mark.append(title);
    return mark;
  });
}

function drawAhead(ahead, x, y) {
  if (ahead.length === 0) return [];
  const [low, middle, high] = [1, 2, 3].map(at => lines(ahead, at, x, y)[0]);
  const now = x(ahead[0][0]);
  return [
    svg('path', { class: 'ahead', d: path([...high, ...low.reverse()]) + 'Z' }),
    svg('path', { class: 'likely', d: path(middle) }),
    svg('path', { class: 'cursor', d: `M${now} 0V127` }),
  ];
}

// --- one group -----------------------------------------------------------------------------------------------------

const plots = [
  makePlot('Lag', [['one', 1, 'lag']], [2, 3], true),
  makePlot('Entries per second', [['one', 4, 'added'], ['two', 5, 'delivered']]),
  makePlot('Pending', [['one', 6, 'pending']]),
];

const FACTS = [
  ['Lag', lag], ['Certainty', row => row.lag_quality ?? 'unknown'], ['Behind', row => duration(row.lag_seconds)], ['Next', row => next(row)[0]],
  ['Added per second', row => amount(row.added_per_second)], ['Delivered per second', row => amount(row.delivered_per_second)],
  ['Acknowledged per second, estimated', row => amount(row.acknowledged_estimate_per_second)],
  ['Pending', row => amount(row.pending)], ['Oldest pending', row => duration(row.oldest_pending_seconds)],
  ['Deliveries of the oldest pending', row => amount(row.oldest_pending_deliveries)],
  ['Pending without payload', row => amount(row.ghost_pending)], ['Lost, at least', row => amount(row.lost_entries)],
  ['Entries until a loss', row => amount(row.trim_headroom_entries)], ['Time until a loss', row => duration(row.trim_headroom_seconds)],
  ['Consumers', row => amount(row.consumers)], ['Recommended consumers', row => row.recommended_consumers === null ? `– ${row.recommended_consumers_reason ?? ''}` : amount(row.recommended_consumers)],
  ['Last delivered id', row => row.last_delivered_id ?? '–'],
];

function drawDetail() {
  const row = groups.get(view.stream + '\u0000' + view.group);
  say($('detail-title'), `${view.stream} / ${view.group}`);
  const box = $('detail-state');
  if (!row) {
    level(box, 'unknown');
    say(box, 'This group is not monitored, or it is gone.');
    $('facts').replaceChildren();
    $('plots').replaceChildren();
    return;
  }
  const print = [row.key, row.seen.word, row.seen.why, since(row)].join('\n');
  if (box.print !== print || box.firstChild === null) {
    box.print = print;
    level(box, row.seen.level);
    box.replaceChildren(stateWord(row.seen), ` ${since(row)}`, element('br'), row.seen.why);
    if (row.seen.book) box.append(' · ', runbook(row.seen.book, 'What to do'));
  }
  const facts = $('facts');
  if (facts.children.length === 0) facts.append(...FACTS.map(([name]) => element('div', null, element('dt', null, name), element('dd'))));
  FACTS.forEach(([, text], at) => say(facts.children[at].lastChild, text(row)));
  if ($('plots').children.length === 0) $('plots').append(...plots.map(plot => plot.figure));
  const points = withPast(until(row.points, sampledAt));
  for (const plot of plots) plot.redraw(points);
  drawSpans();
  drawOutlook();
  say($('marks'), marksOf(points).slice(-MOST_MARKS).map(([time, , text]) => `${moment(time)} ${text}`).join(' · '));
  readPast(row);
  readForecast(row);
  readConsumers(row);
}

/** What the server remembers of the group that is looked at, from before this page began to look. */
let past = [], pastOf = null;
/** What the plots show, and whether the server remembers more than two hours. */
let span = 'hour', isLong = false;
async function readPast(row) {
  const wanted = row.key + '\u0000' + span, [, back, width] = SPANS[span];
  if (pastOf === wanted) return;
  [past, pastOf] = [[], wanted];
  const asked = new URLSearchParams({ target: head.target, stream: row.stream, group: row.consumer_group, from: `-${back}s`, step: `${width}s` });
  try {
    const answer = await fetch(`${API}history?${asked}`, { headers: headers('application/json'), cache: 'no-store' });
    if (!answer.ok) return;
    const { points, step_seconds: step, source } = await answer.json();
    if (pastOf !== wanted) return;
    isLong = source !== 'memory';
    // A file has a point per minute, however narrow the step is.
    const gap = 2500 * (isLong ? Math.max(step, 60) : step);
    for (const point of points) {
      // What it says of its lag was so at its end.
      const time = Math.min(Date.parse(point.time) + 1000 * step, Date.now()), last = past.at(-1);
      // What was not sampled is a gap.
      if (last && time - last[0] > gap) past.push([last[0] + 1]);
      past.push([time, point.lag, point.lag_min, point.lag_max, point.added_per_second, point.delivered_per_second, point.pending, point.lost_entries, point.state]);
    }
    draw();
  } catch {
    // The stream tells of a server that is gone.
  }
}

function withPast(points) {
  const from = points[0]?.[0] ?? Infinity;
  return [...past.filter(point => point[0] < from), ...points];
}

function drawSpans() {
  const box = $('spans');
  if (box.children.length === 0) {
    box.append(...Object.keys(SPANS).map(name => element('button', { type: 'button', value: name }, SPANS[name][0])));
    box.addEventListener('click', event => {
      if (!event.target.value || event.target.value === span) return;
      [span, forecastRead] = [event.target.value, 0];
      draw();
    });
  }
  for (const button of box.children) {
    button.setAttribute('aria-pressed', String(button.value === span));
    button.disabled = button.value !== 'hour' && !isLong;
    button.title = button.disabled ? 'Needs --history.path' : '';
  }
}

/** What is forecast of the group that is looked at: the answer, or null. */
let forecast = null, forecastOf = null, forecastRead = 0;
async function readForecast(row) {
  const wanted = row.key + '\u0000' + span;
  if (forecastOf === wanted && Date.now() - forecastRead < FORECAST_EVERY) return;
  if (forecastOf !== wanted) forecast = null;
  [forecastOf, forecastRead] = [wanted, Date.now()];
  try {
    let made = null;
    for (const seconds of SPANS[span][3]) {
      const asked = new URLSearchParams({ target: head.target, stream: row.stream, group: row.consumer_group, horizon: `${seconds}s` });
      const answer = await fetch(`${API}forecast?${asked}`, { headers: headers('application/json'), cache: 'no-store' });
      if (forecastOf !== wanted || !answer.ok) return;
      made = await answer.json();
      if (made.points) break;
    }
    if (forecastOf !== wanted) return;
    forecast = made;
    draw();
  } catch {
    // The stream tells of a server that is gone.
  }
}

/** Points ahead as [time, q10, q50, q90], from the last point that was seen on. */
function whatIsAhead(last) {
  if (!forecast?.points || last[1] === null) return [];
  const points = forecast.points.map(point => [Date.parse(point.time), point.q10, point.q50, point.q90]).filter(point => point[0] > last[0]);
  return points.length === 0 ? [] : [[last[0], last[1], last[1], last[1]], ...points];
}

/** When something is forecast to happen, in words; nothing where it is not. */
function expected(what, times) {
  if (!times) return '';
  if (times.q50 === null) return ` ${what} within that time is possible (from ${duration(times.q10)} on), and unlikely.`;
  return ` ${what} in ${duration(times.q50)} (${duration(times.q10)} to ${times.q90 === null ? 'later than that time' : duration(times.q90)}).`;
}

function drawOutlook() {
  if (!forecast) return say($('outlook'), '');
  if (!forecast.points) return say($('outlook'), `No forecast: ${forecast.reason}.`);
  const end = forecast.points.at(-1), { time_to: to, skill, replay } = forecast;
  const judged = skill.forecasts > 0 ? skill : replay, share = judged?.coverage_80;
  const record = judged?.mase === null || judged?.mase === undefined ? '' : ` Error so far: ${Math.round(judged.mase * 100)} % of that of "it stays as it is"; ${Math.round(share * 100)} % came within the band.`;
  say($('outlook'), `In ${duration(forecast.horizon_seconds)}: lag ${amount(end.q50)}, with 80 % between ${amount(end.q10)} and ${amount(end.q90)}.`
    + expected('Loss', to.loss) + expected('Drained', to.drained) + record);
}

let consumersRead = 0, consumersOf = null;
async function readConsumers(row) {
  if (consumersOf === row.key && Date.now() - consumersRead < CONSUMERS_EVERY) return;
  if (consumersOf !== row.key) $('consumer-rows').replaceChildren();
  [consumersOf, consumersRead] = [row.key, Date.now()];
  const asked = new URLSearchParams({ target: head.target, group: row.consumer_group });
  try {
    const answer = await fetch(`${API}consumers?${asked}`, { headers: headers('application/json'), cache: 'no-store' });
    if (!answer.ok) return say($('consumers-note'), await problem(answer));
    const { consumers } = await answer.json();
    if (consumersOf === row.key) drawConsumers(consumers.filter(one => one.stream === row.stream), row);
  } catch {
    // The stream tells of a server that is gone.
  }
}

function drawConsumers(consumers, row) {
  const none = row.consumers === 0 ? 'The group has no consumer.' : 'Consumers are not read.';
  const left = row.consumers_not_shown > 0 ? `${count(row.consumers_not_shown, 'more consumer')} not shown.` : '';
  say($('consumers-note'), consumers.length === 0 ? none : left);
  const health = one => one.active === false ? ['bad', 'dead'] : one.active === null ? ['unknown', 'idle'] : one.health_score < 50 ? ['warn', 'slow'] : ['ok', 'alive'];
  const texts = one => [one.consumer, amount(one.pending), one.pending_share === null ? '–' : `${Math.round(one.pending_share * 100)} %`,
    duration(one.idle_seconds), duration(one.inactive_seconds), duration(one.oldest_pending_seconds)];
  const order = consumers.sort((a, b) => a.health_score - b.health_score || orLeast(b.pending) - orLeast(a.pending) || compare(a.consumer, b.consumer));
  const body = $('consumer-rows');
  while (body.children.length > order.length) body.lastChild.remove();
  order.forEach((one, at) => {
    const tr = body.children[at] ?? body.appendChild(element('tr', null, ...Array.from({ length: 7 }, (_, n) => element('td', { class: n > 1 ? 'n' : null }))));
    const [mark, word] = health(one);
    tr.children[0].replaceChildren(stateWord({ level: mark, word: `${word} ${one.health_score}` }));
    texts(one).forEach((text, n) => { say(tr.children[n + 1], text); });
    tr.children[1].title = one.consumer;
  });
}

// --- the stream ----------------------------------------------------------------------------------------------------

let connection = null, retryTimer = 0, retry = FIRST_RETRY, state = ['unknown', 'Starting'];

function status(mark, text) {
  state = [mark, text];
  drawStatus();
}

function drawStatus() {
  let [mark, text] = state;
  if (mark === 'ok' && head) {
    const age = (Date.now() - sampledAt) / 1000, stale = 3 * (head.poll_interval_seconds ?? 5) + 2;
    text = head.age_seconds === null ? 'Live, no sample yet' : `Live, sample ${duration(Math.max(0, age))} old`;
    if (age > stale) mark = 'warn';
  }
  level($('connection'), mark);
  say($('connection-text'), text);
}

function headers(accept) {
  return token ? { Accept: accept, Authorization: `Bearer ${token}` } : { Accept: accept };
}

async function problem(answer) {
  try {
    return (await answer.json()).detail ?? `the server answers ${answer.status}`;
  } catch {
    return `the server answers ${answer.status}`;
  }
}

function disconnect() {
  clearTimeout(retryTimer);
  retryTimer = 0;
  connection?.abort();
  if (connection) gap();
  connection = null;
}

function again(why, wait) {
  const seconds = Math.max(1, Math.round(wait / 1000));
  status('bad', `${why}; next try in ${seconds} s`);
  retryTimer = setTimeout(connect, wait);
}

/** Waits longer each time, and never as long as another page does: a server that restarts is not to be asked by all at once. */
function backoff() {
  const wait = retry * (0.7 + 0.6 * Math.random());
  retry = Math.min(LAST_RETRY, retry * 2);
  return wait;
}

async function connect() {
  disconnect();
  if (paused || document.hidden || !$('login').hidden) return;
  const here = connection = new AbortController();
  let silence = 0;
  const alive = () => { clearTimeout(silence); silence = setTimeout(() => here.abort(), SILENCE); };
  let ended = null;
  try {
    alive();
    status('unknown', 'Connecting');
    const query = view.target ? `?${new URLSearchParams({ target: view.target })}` : '';
    const answer = await fetch(`${API}live${query}`, { headers: headers('text/event-stream'), cache: 'no-store', signal: here.signal });
    if (!answer.ok) {
      const why = await problem(answer);
      if (here !== connection) return;
      connection = null;
      if (answer.status === 401) return ask(token ? why : '');
      if (answer.status === 404 && view.target) return go({ target: '' });
      const after = Number(answer.headers.get('Retry-After')) * 1000;
      return again(why, Math.max(backoff(), after || 0));
    }
    ended = await read(answer.body, here, alive);
  } catch (error) {
    ended = here.signal.aborted ? null : { reason: error instanceof TypeError ? 'no connection' : String(error.message) };
  } finally {
    clearTimeout(silence);
  }
  if (here !== connection) return;
  disconnect();
  if (ended?.reason?.startsWith('token')) return ask(ended.detail ?? ended.reason);
  again(ended?.detail ?? ended?.reason ?? 'the server fell silent', Math.max(backoff(), ended?.retry ?? 0));
}

/** Reads events until the stream ends; how it ended. */
async function read(body, here, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = [], ended = { reason: 'the connection was closed' };
  for (;;) {
    const { value, done } = await reader.read();
    if (done || here !== connection) return ended;
    alive();
    // An event ends with an empty line. Long ones come in many pieces, which are put together once.
    rest.push(value);
    const tail = rest.length > 1 ? rest.at(-2).slice(-1) + value : value;
    if (!tail.includes('\n\n')) continue;
    const events = rest.join('').split('\n\n');
    rest = [events.pop()];
    for (const event of events) {
      const data = event.split('\n').filter(line => line.startsWith('data: ')).map(line => line.slice(6)).join('\n');
      if (data === '') continue;
      const message = JSON.parse(data);
      if (message.type === 'end') { ended = message; continue; }
      retry = FIRST_RETRY;
      status('ok', 'Live');
      $('pause').disabled = false;
      receive(message);
    }
  }
}

function ask(why) {
  disconnect();
  [token, plans, plansRead] = ['', null, 0];
  $('confirm').close();
  say($('decided'), '');
  try { sessionStorage.removeItem(TOKEN_KEY); } catch { /* not allowed to store */ }
  $('login').hidden = false;
  say($('login-why'), why ? `${why[0].toUpperCase()}${why.slice(1)}.` : '');
  status('unknown', 'Waiting for a token');
  drawNow();
  $('token').focus();
}

function setPaused(now) {
  paused = now;
  const button = $('pause');
  button.setAttribute('aria-pressed', String(paused));
  say(button, paused ? 'Resume' : 'Pause');
  follow();
}

/** Connects or disconnects, as the page is paused, hidden, or neither. */
function follow() {
  if (paused || document.hidden) {
    disconnect();
    status('warn', `${paused ? 'Paused' : 'Paused while hidden'}${sampledAt ? ` at the sample of ${CLOCK.format(sampledAt)}` : ''}`);
  } else if (!connection) {
    retry = FIRST_RETRY;
    connect();
  }
}

// --- where we are --------------------------------------------------------------------------------------------------

function fromAddress() {
  const at = new URLSearchParams(location.hash.slice(1));
  const changed = (at.get('target') ?? '') !== view.target;
  view = {
    target: at.get('target') ?? '', filter: at.get('filter') ?? '', show: at.get('show') ?? 'all',
    sort: COLUMNS.some(column => column[0] === at.get('sort') && column[3]) ? at.get('sort') : 'state', down: at.get('order') !== 'up',
    stream: at.has('group') ? at.get('stream') ?? '' : null, group: at.get('group'),
  };
  if ($('filter').value !== view.filter) $('filter').value = view.filter;
  sorted = null;
  return changed;
}

function address({ target, filter, show, sort, down, stream, group }) {
  const at = new URLSearchParams();
  if (target) at.set('target', target);
  if (stream !== null) { at.set('stream', stream); at.set('group', group); }
  if (filter) at.set('filter', filter);
  if (show !== 'all') at.set('show', show);
  if (sort !== 'state') at.set('sort', sort);
  if (!down) at.set('order', 'up');
  return '#' + at;
}

function go(changes) {
  const to = address({ ...view, ...changes });
  if ('target' in changes || 'stream' in changes) location.hash = to;
  else { history.replaceState(null, '', to); arrive(); }
}

function arrive() {
  const wasDetail = view.stream !== null, otherTarget = fromAddress();
  if (otherTarget) {
    disconnect();
    groups.clear();
    incidents.clear();
    head = null;
    connect();
  }
  // Where the reader was: one group, or the table.
  if (view.stream !== null && !wasDetail) $('main').focus({ preventScroll: true });
  consumersRead = 0;
  pastOf = null;
  $('back').href = address({ ...view, stream: null, group: null });
  drawNow();
  if (view.stream === null && wasDetail && head) moveTo(Math.max(0, shownRows().findIndex(row => row.key === current)));
}

function start() {
  makeColumns();
  fromAddress();
  try { token = sessionStorage.getItem(TOKEN_KEY) ?? ''; } catch { /* not allowed to read */ }
  addEventListener('hashchange', arrive);
  addEventListener('resize', draw);
  document.addEventListener('visibilitychange', follow);
  document.addEventListener('keydown', event => { if (event.key === 'Escape' && view.stream !== null && !$('confirm').open) go({ stream: null, group: null }); });
  $('pause').addEventListener('click', () => setPaused(!paused));
  $('scroll').addEventListener('scroll', draw, { passive: true });
  $('scroll').addEventListener('keydown', keys);
  $('rows').addEventListener('focusin', event => {
    current = event.target.closest('tr')?.key ?? current;
    for (const tr of pool) tr.link.tabIndex = tr.key === current ? 0 : -1;
  });
  $('filter').addEventListener('input', event => { $('scroll').scrollTop = 0; go({ filter: event.target.value }); });
  $('states').addEventListener('click', event => {
    const button = event.target.closest('button');
    if (button) { $('scroll').scrollTop = 0; go({ show: button.value }); }
  });
  $('columns').addEventListener('click', event => {
    const sort = event.target.closest('button')?.parentNode.dataset.sort;
    if (sort) go({ sort, down: sort === view.sort ? !view.down : sort !== 'stream' && sort !== 'group' });
  });
  $('target').addEventListener('change', event => go({ target: event.target.value, stream: null, group: null }));
  $('login-form').addEventListener('submit', event => {
    event.preventDefault();
    token = $('token').value.trim();
    if ($('remember').checked) try { sessionStorage.setItem(TOKEN_KEY, token); } catch { /* not allowed to store */ }
    $('token').value = '';
    $('login').hidden = true;
    connect();
  });
  startPlans();
  setInterval(() => { drawStatus(); readPlans(); }, 1000);
  follow();
}

start();
