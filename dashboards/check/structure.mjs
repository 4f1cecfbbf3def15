// What types cannot see: ids, layout, data sources, variables, and what the queries ask for.

import { parser } from '@prometheus-io/lezer-promql';
import { isReducer, isUnit, MATCHERS, TRANSFORMERS } from './registries.mjs';

/** Grafana's own variables that a query may use, and what stands in for them while parsing: durations nobody would write. */
const MACROS = { __rate_interval: '1h1m1s1ms', __range: '2h2m2s2ms' };
/** Metrics that Prometheus makes itself, so docs/metrics.md does not list them. */
const OF_PROMETHEUS = new Set(['ALERTS', 'up']);
/** Every metric of the exporter starts with one of these. */
const OURS = /^(event|streamlag|process)_/;
/** Functions over a counter's or gauge's recent past, whose window has to follow the scrape interval and the zoom. */
const RATES = new Set(['rate', 'irate', 'increase', 'delta', 'idelta', 'deriv']);
/** Grafana 10.0 has schema version 38, 10.4 has 39. An older Grafana does not migrate down, a newer one migrates up. */
const NEWEST_SCHEMA_VERSION = 39;
const COLUMNS = 24;

/**
 * @param {object} dashboard
 * @param {Set<string> | undefined} documented metric names of docs/metrics.md, if there is one
 * @returns {{where: string, message: string}[]}
 */
export function checkStructure(dashboard, documented) {
  const errors = [];
  const panels = allPanels(dashboard);
  const variables = dashboard.templating?.list ?? [];
  const label = (p) => `panel ${p.id} ${JSON.stringify(p.title)}`;

  checkFrame(dashboard, (message) => errors.push({ where: 'the dashboard itself', message }));
  checkUnique(panels.map((p) => p.id), (id) => errors.push({ where: 'panels', message: `id ${id} is used more than once` }));
  checkUnique(variables.map((v) => v.name), (name) => errors.push({ where: 'variables', message: `${name} is declared more than once` }));
  checkGrid(dashboard.panels ?? [], (p, message) => errors.push({ where: label(p), message }));
  checkRows(dashboard.panels ?? [], (p, message) => errors.push({ where: label(p), message }));
  checkDataSources(dashboard, (where, message) => errors.push({ where, message }));
  for (const p of panels) checkPanel(p, (message) => errors.push({ where: label(p), message }));

  const declared = new Set(variables.map((v) => v.name));
  const used = new Set(['datasource']);
  for (const { where, expr, filters, instant } of queries(dashboard)) {
    checkQuery(expr, { declared, used, documented, filters, instant }, (message) => errors.push({ where, message: `${message}\n    in: ${expr.replaceAll('\n', ' ')}` }));
  }
  for (const name of declared) if (!used.has(name)) errors.push({ where: `variable ${name}`, message: 'is used by no query' });
  return errors;
}

/** The panels of the dashboard, rows and what is inside collapsed rows included. */
export function allPanels(dashboard) {
  return (dashboard.panels ?? []).flatMap((p) => [p, ...(p.panels ?? [])]);
}

/** Every PromQL expression of the dashboard, with the variables its selectors have to be filtered by. */
export function* queries(dashboard) {
  const before = [];
  for (const v of dashboard.templating?.list ?? []) {
    if (v.type !== 'query') continue;
    // label_values(selector, label), filtered by the variables declared before this one
    const [, selector] = /^label_values\((.+),\s*[a-zA-Z_]\w*\)$/s.exec(v.query?.query ?? '') ?? [];
    yield { where: `variable ${v.name}`, expr: selector ?? `not label_values(selector, label): ${v.query?.query}`, filters: [...before] };
    before.push(v.name);
  }
  for (const a of dashboard.annotations?.list ?? []) yield { where: `annotation ${JSON.stringify(a.name)}`, expr: a.target?.expr ?? '', filters: ['job'] };
  for (const p of allPanels(dashboard)) {
    for (const t of p.targets ?? []) yield { where: `panel ${p.id} ${JSON.stringify(p.title)} query ${t.refId}`, expr: t.expr ?? '', filters: ['job', 'instance', 'stream'], instant: t.instant };
  }
}

function checkFrame(d, fail) {
  if (d.id !== null) fail('id has to be null: an id belongs to one Grafana instance');
  if (!/^[a-zA-Z0-9_-]{1,40}$/.test(d.uid ?? '')) fail(`uid ${JSON.stringify(d.uid)} is not 1 to 40 of a-z A-Z 0-9 _ -`);
  if (d.schemaVersion > NEWEST_SCHEMA_VERSION) fail(`schemaVersion ${d.schemaVersion} is newer than ${NEWEST_SCHEMA_VERSION}, that of the oldest Grafana supported`);
  for (const key of ['__inputs', '__requires', '__elements']) if (key in d) fail(`${key} makes an import ask questions`);
}

function checkUnique(values, fail) {
  const seen = new Set();
  for (const v of values) seen.has(v) ? fail(v) : seen.add(v);
}

function checkGrid(panels, fail) {
  for (const [i, p] of panels.entries()) {
    const g = p.gridPos ?? {};
    if (![g.x, g.y, g.w, g.h].every(Number.isInteger) || g.x < 0 || g.y < 0 || g.w < 1 || g.h < 1) {
      fail(p, `gridPos ${JSON.stringify(g)} is not whole numbers`);
      continue;
    }
    if (g.x + g.w > COLUMNS) fail(p, `ends at column ${g.x + g.w} of ${COLUMNS}`);
    if (p.type === 'row' && (g.w !== COLUMNS || g.h !== 1)) fail(p, 'a row is 24 wide and 1 high');
    for (const q of panels.slice(0, i)) {
      const o = q.gridPos ?? {};
      if (g.x < o.x + o.w && o.x < g.x + g.w && g.y < o.y + o.h && o.y < g.y + g.h) fail(p, `overlaps panel ${q.id} ${JSON.stringify(q.title)}`);
    }
  }
}

/** A collapsed row carries its panels, an open one is followed by them. */
function checkRows(panels, fail) {
  const inOrder = [...panels].sort((a, b) => a.gridPos?.y - b.gridPos?.y);
  for (const [i, p] of inOrder.entries()) {
    if (p.type !== 'row') continue;
    const inside = p.panels ?? [];
    if (!p.collapsed && inside.length > 0) fail(p, 'is open and has panels inside, which Grafana does not show');
    if (!p.collapsed) continue;
    if (inside.length === 0) fail(p, 'is collapsed and has no panels inside');
    if (inOrder[i + 1] !== undefined && inOrder[i + 1].type !== 'row') fail(p, `is collapsed, and panel ${inOrder[i + 1].id} comes after it and before the next row`);
    checkGrid(inside, fail);
    for (const q of inside) if (q.gridPos?.y <= p.gridPos?.y) fail(q, `is in the collapsed row ${JSON.stringify(p.title)} and above it`);
  }
}

/** Wherever a data source is named, it is the variable. */
function checkDataSources(node, fail, where = 'the dashboard itself') {
  if (node === null || typeof node !== 'object') return;
  for (const [key, value] of Object.entries(node)) {
    if (key === 'datasource' && value?.uid !== '${datasource}') fail(where, `data source ${JSON.stringify(value)} is not \${datasource}`);
    checkDataSources(value, fail, value?.title ? `${JSON.stringify(value.title)}` : where);
  }
}

function checkPanel(p, fail) {
  if (p.type === 'row') return;
  if (!/\S\.$/.test(p.description ?? '')) fail('has no description, or one that does not end as a sentence');
  if (p.datasource === undefined) fail('has no data source');
  if (!p.targets?.length) fail('has no query');
  checkUnique((p.targets ?? []).map((t) => t.refId), (id) => fail(`refId ${id} is used more than once`));
  for (const t of p.targets ?? []) {
    if (t.datasource === undefined) fail(`query ${t.refId} has no data source`);
    if (Boolean(t.instant) === Boolean(t.range)) fail(`query ${t.refId} has to be either instant or range`);
    // A range query's last value stays on show long after its series is gone; an instant query's does not.
    if ((p.type === 'stat' || p.type === 'table') && !t.instant) fail(`query ${t.refId} has to be instant, or it shows stale values as current`);
    if (p.type === 'table' && t.format !== 'table') fail(`query ${t.refId} of a table has to have format table`);
  }

  const { defaults = {}, overrides = [] } = p.fieldConfig ?? {};
  if (!isUnit(defaults.unit)) fail(`unit ${JSON.stringify(defaults.unit)} is none Grafana knows`);
  if (defaults.noValue === undefined) fail('has no noValue text');
  checkThresholds(defaults.thresholds, fail);
  const legends = (p.targets ?? []).map((t) => t.legendFormat ?? '');
  const fromLabels = legends.some((l) => l.includes('{{')); // then names are not known before the data is
  const names = new Set(legends);
  for (const t of p.transformations ?? []) {
    if (!TRANSFORMERS.has(t.id)) fail(`transformation ${JSON.stringify(t.id)} is none Grafana knows`);
    for (const name of Object.values(t.options?.renameByName ?? {})) names.add(name);
  }
  for (const o of overrides) {
    if (!MATCHERS.has(o.matcher?.id)) fail(`matcher ${JSON.stringify(o.matcher?.id)} is none Grafana knows`);
    if (o.matcher?.id === 'byName' && !fromLabels && !names.has(o.matcher.options)) fail(`override for ${JSON.stringify(o.matcher.options)}, which nothing here is called`);
    for (const property of o.properties ?? []) {
      if (property.id === 'unit' && !isUnit(property.value)) fail(`unit ${JSON.stringify(property.value)} is none Grafana knows`);
      if (property.id === 'thresholds') checkThresholds(property.value, fail);
    }
  }
  for (const s of p.options?.sortBy ?? []) if (!names.has(s.displayName)) fail(`sorted by ${JSON.stringify(s.displayName)}, which nothing here is called`);
  for (const calc of [...(p.options?.reduceOptions?.calcs ?? []), ...(p.options?.legend?.calcs ?? [])]) {
    if (!isReducer(calc)) fail(`calculation ${JSON.stringify(calc)} is none Grafana knows`);
  }
}

function checkThresholds(thresholds, fail) {
  const values = (thresholds?.steps ?? []).map((s) => s.value);
  if (values[0] !== null) fail('thresholds do not start with a base step (value null)');
  if (values.slice(2).some((v, i) => v <= values[i + 1])) fail(`thresholds ${JSON.stringify(values)} do not rise`);
}

function checkQuery(raw, { declared, used, documented, filters, instant }, fail) {
  let expr = raw;
  for (const [, name] of raw.matchAll(/\$\{?([a-zA-Z_]\w*)/g)) {
    used.add(name);
    if (name in MACROS) expr = expr.replaceAll(`$${name}`, MACROS[name]);
    else if (!declared.has(name)) fail(`$${name} is neither a variable of this dashboard nor an allowed macro`);
  }

  const text = (node) => expr.slice(node.from, node.to);
  let broken = expr.trim() === '';
  const selectors = [];
  const windows = [];
  parser.parse(expr).iterate({
    enter({ node, type, name }) {
      if (type.isError) broken = true;
      if (name === 'VectorSelector') selectors.push(node);
      const called = name === 'FunctionCall' ? text(node.getChild('FunctionIdentifier')) : undefined;
      if (RATES.has(called)) {
        const matrix = node.getChild('FunctionCallBody')?.getChild('MatrixSelector');
        if (matrix) windows.push({ called, window: text(matrix).replace(/^.*\[/s, '[') });
      }
    },
  });
  if (broken) return fail('does not parse as PromQL');
  // A single number may say what came together over the time shown; in a graph every point would.
  const follows = (w) => w.window === `[${MACROS.__rate_interval}]` || (instant && w.called === 'increase' && w.window === `[${MACROS.__range}]`);
  if (!windows.every(follows)) fail('takes a rate over a fixed window instead of [$__rate_interval]');

  for (const node of selectors) {
    const matchers = new Map(
      (node.getChild('LabelMatchers')?.getChildren('UnquotedLabelMatcher') ?? []).map((m) => [
        text(m.getChild('LabelName')), { op: text(m.getChild('MatchOp')), value: text(m.getChild('StringLiteral')).slice(1, -1) },
      ]),
    );
    const identifier = node.getChild('Identifier');
    const byName = matchers.get('__name__');
    // Without a name, {__name__=~"a|b"}: plain alternatives are all that is allowed.
    const metrics = identifier ? [text(identifier)] : byName && ['=', '=~'].includes(byName.op) ? byName.value.split('|') : [];
    if (metrics.length === 0) fail(`${text(node)} names no metric`);
    for (const metric of metrics) {
      const known = OF_PROMETHEUS.has(metric) || (documented ? isDocumented(metric, documented) : OURS.test(metric));
      if (!known) fail(`${metric} is not a metric of docs/metrics.md`);
      for (const name of filters) {
        // Logical streams have no stream label.
        // An alert may be about no exporter: absent(up) has none.
        if (metric === 'ALERTS' && name !== 'job') continue;
        if (name === 'stream' && (!metric.startsWith('event_') || metric.startsWith('event_logical_') || asksAboutExporter(node, text))) continue;
        const m = matchers.get(name);
        if (m?.op !== '=~' || m.value !== `$${name}`) fail(`${metric} is not filtered by ${name}=~"$${name}"`);
      }
    }
  }
}

/** The right-hand side of `... on (job, instance) ...` is about the whole exporter, whatever streams are chosen. */
function asksAboutExporter(node, text) {
  const clause = node.parent?.getChild('MatchingModifierClause');
  return clause != null && clause.to <= node.from && /^on \(job, instance\)$/.test(text(clause).trim());
}

function isDocumented(metric, documented) {
  return documented.has(metric) || documented.has(metric.replace(/_(bucket|sum|count)$/, ''));
}

/** Metric names of a Markdown table: whatever stands in backticks in a row's first cell. */
export function documentedMetrics(markdown) {
  const names = new Set();
  for (const line of markdown.split('\n')) {
    const [, cell] = /^\s*\|([^|]*)\|/.exec(line) ?? [];
    for (const [, name] of (cell ?? '').matchAll(/`([a-zA-Z_:][\w:]*)[^`]*`/g)) names.add(name);
  }
  return names;
}
