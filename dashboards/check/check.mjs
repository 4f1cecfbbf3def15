// Checks every dashboard beside this folder. Exit code 0: nothing to say; 1: something is wrong, one paragraph each; 2: could not check.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { allPanels, checkStructure, documentedMetrics, queries } from './structure.mjs';
import { checkTypes, VERSIONS } from './types.mjs';

const DASHBOARDS = join(dirname(fileURLToPath(import.meta.url)), '..');
const METRICS = join(DASHBOARDS, '..', 'docs', 'metrics.md');

const names = readdirSync(DASHBOARDS).filter((file) => file.endsWith('.json')).sort();
if (names.length === 0) {
  console.error(`no dashboard in ${DASHBOARDS}`);
  process.exit(2);
}

let documented;
if (existsSync(METRICS)) {
  documented = documentedMetrics(readFileSync(METRICS, 'utf8'));
  if (documented.size === 0) {
    console.error(`${METRICS} has no table whose first cells name metrics in backticks`);
    process.exit(2);
  }
} else {
  console.error('docs/metrics.md is not there: metric names are checked by their prefix only');
}

const errors = [];
const dashboards = new Map();
for (const name of names) {
  try {
    dashboards.set(name, JSON.parse(readFileSync(join(DASHBOARDS, name), 'utf8')));
  } catch (e) {
    errors.push({ name, where: 'the file', message: e.message });
  }
}
for (const [name, dashboard] of dashboards) {
  for (const e of checkStructure(dashboard, documented)) errors.push({ name, ...e });
}
const uids = [...dashboards.values()].map((d) => d.uid);
if (new Set(uids).size !== uids.length) errors.push({ name: 'dashboards', where: 'uid', message: 'two dashboards share one uid' });
errors.push(...checkTypes(dashboards));

for (const { name, where, message } of errors) console.error(`${name}: ${where}: ${message}`);
if (errors.length > 0) {
  console.error(`${errors.length} found`);
  process.exit(1);
}
for (const [name, d] of dashboards) {
  console.log(`${name}: ${allPanels(d).length} panels, ${[...queries(d)].length} queries, ${documented ? `all metrics among the ${documented.size} of docs/metrics.md, ` : ''}types as in ${VERSIONS.map((v) => v.name).join(', ')}`);
}
