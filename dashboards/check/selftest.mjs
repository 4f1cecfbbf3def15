// Shows that the check catches mistakes: breaks a good dashboard in one way at a time and expects each to be found. Without this, types that
// quietly failed to load would look like a dashboard without errors.

import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { allPanels, checkStructure } from './structure.mjs';
import { checkTypes, VERSIONS } from './types.mjs';

const read = (name) => JSON.parse(readFileSync(join(dirname(fileURLToPath(import.meta.url)), '..', name), 'utf8'));
/** The dashboard for who is on call, with the collapsed rows of the exporter's below. */
const GOOD = read('streamlag.json');
for (const row of read('streamlag-exporter.json').panels.filter((p) => p.type === 'row')) {
  for (const p of [row, ...row.panels]) p.gridPos.y += 100;
  GOOD.panels.push(row);
}

/** The list of alerts is the simplest of the tables. */
const linked = (d) => d.panels.find((p) => p.title === 'Firing alerts');
const first = (d, type) => d.panels.find((p) => p.type === type && p !== linked(d));
const collapsed = (d) => d.panels.find((p) => p.type === 'row' && p.collapsed);
const rename = (object, from, to) => {
  object[to] = object[from];
  delete object[from];
};

/** Mistakes the types have to catch, in every version unless it says which. */
const OF_TYPE = [
  ['misspelled key of the dashboard', (d) => rename(d, 'refresh', 'refreshh'), /'refreshh' does not exist/],
  ['misspelled key of a panel', (d) => rename(first(d, 'stat'), 'description', 'descripton'), /'descripton' does not exist|'description' is missing/],
  ['misspelled option', (d) => rename(first(d, 'stat').options, 'colorMode', 'colourMode'), /'colourMode' does not exist/],
  ['misspelled nested option', (d) => rename(first(d, 'timeseries').options.legend, 'placement', 'placment'), /'placment' does not exist/],
  ['missing option', (d) => delete first(d, 'timeseries').options.tooltip, /'tooltip' is missing/],
  ['option of another visualization', (d) => (first(d, 'table').options.graphMode = 'none'), /'graphMode' does not exist/],
  ['misspelled custom field config', (d) => rename(first(d, 'timeseries').fieldConfig.defaults.custom, 'lineWidth', 'linewidth'), /'linewidth'/],
  ['misspelled standard field config', (d) => rename(first(d, 'stat').fieldConfig.defaults, 'unit', 'units'), /'units' does not exist/],
  ['wrong string enum', (d) => (first(d, 'stat').options.colorMode = 'backgroud'), /'backgroud' is not assignable/],
  ['wrong number enum', (d) => (d.templating.list[1].sort = 11), /'11' is not assignable/],
  ['wrong enum in a nested object', (d) => (first(d, 'timeseries').fieldConfig.defaults.custom.thresholdsStyle.mode = 'dotted'), /'dotted' is not assignable/],
  ['wrong color mode', (d) => (first(d, 'stat').fieldConfig.defaults.color.mode = 'threshold'), /'threshold' is not assignable/],
  ['string for a number', (d) => (first(d, 'timeseries').gridPos.w = '12'), /'string' is not assignable to type 'number'/],
  ['number for a string', (d) => (first(d, 'stat').fieldConfig.defaults.unit = 5), /'number' is not assignable to type 'string'/],
  ['string for a boolean', (d) => (first(d, 'timeseries').options.legend.showLegend = 'true'), /'string' is not assignable to type 'boolean'/],
  ['object for a list', (d) => (first(d, 'stat').targets = {}), /is missing the following properties|is not assignable/],
  ['misspelled key of a query', (d) => rename(first(d, 'timeseries').targets[0], 'legendFormat', 'legend'), /'legend' does not exist/],
  ['wrong query format', (d) => (first(d, 'table').targets[0].format = 'tabel'), /'tabel' is not assignable/],
  ['other data source', (d) => (first(d, 'stat').datasource = { type: 'prometheus', uid: 'P1809F7CD0C75ACF3' }), /'P1809F7CD0C75ACF3' is not assignable/],
  ['override of an unknown property', (d) => (withOverride(d, 'timeseries').properties[0].id = 'colour'), /'colour' is not assignable/],
  ['override with a wrong value', (d) => (withOverride(d, 'timeseries').properties[0] = { id: 'custom.fillOpacity', value: 'none' }), /'string' is not assignable to type 'number'/],
  ['override of another visualization', (d) => (withOverride(d, 'table').properties[0] = { id: 'custom.lineWidth', value: 1 }), /'custom.lineWidth' is not assignable/],
  ['misspelled key of a link', (d) => rename(linked(d).fieldConfig.overrides[1].properties[0].value[0], 'targetBlank', 'targetblank'), /'title' does not exist|'url' does not exist/],
  ['misspelled key of a transformation', (d) => rename(first(d, 'table').transformations[1].options, 'renameByName', 'rename'), /'rename' does not exist/],
  ['misspelled key of a variable', (d) => rename(d.templating.list[1], 'includeAll', 'includeall'), /'includeall' does not exist/],
  ['wrong type of variable', (d) => (d.templating.list[1].type = 'queries'), /'queries' is not assignable/],
  ['misspelled key of an annotation', (d) => rename(d.annotations.list[0], 'iconColor', 'iconColour'), /'iconColour' does not exist/],
  ['unknown visualization', (d) => (first(d, 'stat').type = 'stats'), /no types for panel type "stats"/],
  ['misspelled option inside a collapsed row', (d) => rename(collapsed(d).panels[0].options, 'legend', 'legends'), /'legends' does not exist/],
  ['misspelled key of a collapsed row', (d) => rename(collapsed(d), 'collapsed', 'colapsed'), /'colapsed' does not exist|'collapsed' is missing/],
  ['option only newer versions know', (d) => (first(d, 'state-timeline').options.perPage = 20), /'perPage' does not exist/, ['Grafana 10.4']],
  ['option only older versions know', (d) => (first(d, 'table').options.footer = { reducer: ['sum'], show: true }), /'footer' does not exist/, ['Grafana 12.4', 'Grafana 13.2']],
];

/** Mistakes types cannot see. */
const OF_STRUCTURE = [
  ['id set', (d) => (d.id = 7), /id has to be null/],
  ['bad uid', (d) => (d.uid = 'a b'), /uid "a b"/],
  ['schema version of the future', (d) => (d.schemaVersion = 42), /schemaVersion 42 is newer/],
  ['import would ask', (d) => (d.__inputs = []), /__inputs/],
  ['id twice', (d) => (d.panels[2].id = d.panels[1].id), /used more than once/],
  ['overlap', (d) => (d.panels[2].gridPos.x -= 1), /overlaps panel/],
  ['off the grid', (d) => (d.panels[3].gridPos.w = 30), /ends at column/],
  ['overlap inside a collapsed row', (d) => (collapsed(d).panels[1].gridPos.x -= 1), /overlaps panel/],
  ['open row with panels inside', (d) => (collapsed(d).collapsed = false), /is open and has panels inside/],
  ['collapsed row without panels', (d) => (collapsed(d).panels = []), /is collapsed and has no panels/],
  ['panel left behind by its collapsed row', (d) => d.panels.push(collapsed(d).panels.pop()), /is collapsed, and panel \d+ comes after it/],
  ['panel above its collapsed row', (d) => (collapsed(d).panels[0].gridPos.y = 0), /and above it/],
  ['no description', (d) => (first(d, 'stat').description = ''), /has no description/],
  ['data source of a query', (d) => (first(d, 'stat').targets[0].datasource = { uid: 'prom' }), /is not \$\{datasource\}/],
  ['no data source', (d) => delete first(d, 'table').targets[0].datasource, /query A has no data source/],
  ['refId twice', (d) => (first(d, 'table').targets[1].refId = 'A'), /refId A is used more than once/],
  ['stat over a range', (d) => Object.assign(first(d, 'stat').targets[0], { instant: false, range: true }), /has to be instant/],
  ['unknown unit', (d) => (first(d, 'timeseries').fieldConfig.defaults.unit = 'seconds'), /unit "seconds"/],
  ['unknown calculation', (d) => (first(d, 'stat').options.reduceOptions.calcs = ['lastNotNul']), /calculation "lastNotNul"/],
  ['unknown transformation', (d) => (first(d, 'table').transformations[0].id = 'merg'), /transformation "merg"/],
  ['unknown matcher', (d) => (withOverride(d, 'table').matcher.id = 'byname'), /matcher "byname"/],
  ['override for nothing', (d) => (withOverride(d, 'table').matcher.options = 'Lagg'), /override for "Lagg"/],
  ['sorted by nothing', (d) => (first(d, 'table').options.sortBy[0].displayName = 'Lagg'), /sorted by "Lagg"/],
  ['thresholds out of order', (d) => (first(d, 'timeseries').fieldConfig.defaults.thresholds.steps = [{ color: 'green', value: null }, { color: 'red', value: 9 }, { color: 'orange', value: 3 }]), /do not rise/],
  ['broken PromQL', (d) => (first(d, 'timeseries').targets[0].expr = 'sum(event_consumer_lag'), /does not parse/],
  ['no PromQL', (d) => (first(d, 'timeseries').targets[0].expr = ''), /does not parse/],
  ['unknown metric', (d) => replace(d, 'event_consumer_lag{', 'event_consumer_lagg{'), /event_consumer_lagg is not a metric/],
  ['unknown metric by name matcher', (d) => replace(d, 'event_consumer_lag|', 'event_consumer_lagg|'), /event_consumer_lagg is not a metric/],
  ['unknown variable', (d) => replace(d, '$group', '$grp'), /\$grp is neither/],
  ['variable nobody uses', (d) => d.templating.list.push({ ...d.templating.list[1], name: 'spare' }), /spare: is used by no query/],
  ['filter left out', (d) => replace(d, 'streamlag_redis_up{job=~"$job",', 'streamlag_redis_up{'), /is not filtered by job/],
  ['fixed rate window', (d) => replace(d, '[$__rate_interval]', '[5m]'), /fixed window/],
  ['graph of increases over all the time shown', (d) => (first(d, 'timeseries').targets[0].expr = overRange('increase')), /fixed window/],
  ['rate over all the time shown', (d) => (first(d, 'stat').targets[0].expr = overRange('rate')), /fixed window/],
];

function overRange(called) {
  return `${called}(streamlag_polls_total{job=~"$job",instance=~"$instance"}[$__range])`;
}
function panelWithOverride(d, type) {
  return d.panels.find((p) => p.type === type && p !== linked(d) && p.fieldConfig.overrides.length > 0);
}
function withOverride(d, type) {
  return panelWithOverride(d, type).fieldConfig.overrides[0];
}
function replace(d, from, to) {
  for (const t of allPanels(d).flatMap((p) => p.targets ?? [])) t.expr = t.expr.replaceAll(from, to);
  for (const v of d.templating.list) if (v.type === 'query') v.query.query = v.query.query.replaceAll(from, to);
}
function broken(mutate, good = GOOD) {
  const d = structuredClone(good);
  mutate(d);
  if (JSON.stringify(d) === JSON.stringify(good)) throw new Error(`changes nothing: ${mutate}`);
  return d;
}

/** What docs/metrics.md would hold: every metric the good dashboard asks for. */
const documented = new Set(JSON.stringify(GOOD).match(/\b(event|streamlag|process)_\w+\b/g).map((m) => m.replace(/_bucket$/, '')));

let passed = 0;
const missed = [];
const expect = (name, found) => (found ? (passed += 1) : missed.push(name));

/** The good dashboard with the panels that are broken below and no others: compiling all of them once per mistake takes long. */
const types = [...new Set(GOOD.panels.map((p) => p.type))];
const small = { ...GOOD, panels: GOOD.panels.filter((p) => types.some((t) => p === first(GOOD, t)) || p === collapsed(GOOD) || p === linked(GOOD) || (p.fieldConfig && p === panelWithOverride(GOOD, p.type))) };

const typeErrors = checkTypes(new Map([['good', GOOD], ...OF_TYPE.map(([name, mutate]) => [name, broken(mutate, small)])]));
expect('good dashboard, types', !typeErrors.some((e) => e.name === 'good'));
for (const [name, , message, versions = VERSIONS.map((v) => v.name)] of OF_TYPE) {
  // A key written as a string shows as '"key"' in the compiler's words.
  const errors = typeErrors.filter((e) => e.name === name).map((e) => ({ ...e, message: e.message.replaceAll(`'"`, `'`).replaceAll(`"'`, `'`) }));
  const unversioned = errors.some((e) => message.test(e.message) && !VERSIONS.some((v) => e.where.includes(v.name)));
  for (const v of VERSIONS) {
    const found = unversioned || errors.some((e) => e.where.includes(v.name) && message.test(e.message));
    expect(`${name}, ${v.name}`, found === versions.includes(v.name));
  }
}
expect('good dashboard, structure', checkStructure(GOOD, documented).length === 0);
for (const [name, mutate, message] of OF_STRUCTURE) {
  expect(name, checkStructure(broken(mutate), documented).some((e) => message.test(`${e.where}: ${e.message}`)));
}

for (const name of missed) console.error(`not as expected: ${name}`);
console.log(`${passed} passed, ${missed.length} failed`);
process.exit(missed.length === 0 ? 0 : 1);
