// Compiles dashboards, written out as TypeScript literals, against schema.ts: once for every Grafana version named here. Literals, because
// TypeScript checks for unknown keys only in a literal.

import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { allPanels } from './structure.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));

/** The versions checked against, oldest first: where each package keeps its index. */
export const VERSIONS = [
  { name: 'Grafana 10.4', dir: 'grafana-schema-10', index: 'dist/esm/index.d.ts' },
  { name: 'Grafana 11.6', dir: 'grafana-schema-11', index: 'dist/esm/index.d.ts' },
  { name: 'Grafana 12.4', dir: 'grafana-schema-12', index: 'dist/types/index.d.ts' },
  { name: 'Grafana 13.2', dir: 'grafana-schema-13', index: 'dist/types/index.d.ts' },
];

/** The visualizations schema.ts has types for. */
const PANEL_TYPES = new Set(['row', 'stat', 'state-timeline', 'table', 'timeseries']);

/**
 * One constant per part of the dashboard, so that an error names the part.
 * @returns {{source: string, parts: {line: number, label: string}[]}}
 */
function literals(dashboard) {
  const { panels = [], templating = {}, annotations = {}, ...frame } = dashboard;
  const lines = [`import type { Annotation, Frame, Panels, PublishedDashboard, Variable } from './schema';`];
  const parts = [];
  const add = (label, type, value) => {
    parts.push({ line: lines.length, label });
    lines.push(...`export const part${parts.length}: ${type} = ${JSON.stringify(value, null, 1)};`.split('\n'));
  };
  add('the dashboard itself', 'Frame', frame);
  for (const v of templating.list ?? []) add(`variable ${v.name}`, 'Variable', v);
  for (const a of annotations.list ?? []) add(`annotation ${JSON.stringify(a.name)}`, 'Annotation', a);
  for (const p of allPanels(dashboard)) {
    const alone = p.type === 'row' ? { ...p, panels: [] } : p; // what is inside a row has a part of its own
    add(`panel ${p.id} ${JSON.stringify(p.title)}`, `Panels[${JSON.stringify(p.type)}]`, alone);
  }
  add('the dashboard as a whole', 'PublishedDashboard', { ...frame, templating, panels });
  return { source: lines.join('\n') + '\n', parts };
}

/**
 * @param {Map<string, object>} dashboards by name
 * @returns {{name: string, where: string, message: string}[]}
 */
export function checkTypes(dashboards) {
  const errors = [];
  const files = new Map();
  let n = 0;
  for (const [name, dashboard] of dashboards) {
    const unknown = allPanels(dashboard).filter((p) => !PANEL_TYPES.has(p.type));
    for (const p of unknown) {
      errors.push({ name, where: `panel ${p.id} ${JSON.stringify(p.title)}`, message: `no types for panel type ${JSON.stringify(p.type)} in schema.ts` });
    }
    if (unknown.length === 0) files.set(join(HERE, `dashboard-${n++}.ts`), { name, ...literals(dashboard) });
  }

  const parsed = new Map(); // .d.ts files that the versions share are read once
  for (const version of VERSIONS) {
    const options = {
      strict: true, noEmit: true, skipLibCheck: true, types: [], lib: ['lib.es2022.d.ts'],
      target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler,
      baseUrl: join(HERE, 'node_modules'),
      paths: { '@grafana/schema': [`${version.dir}/${version.index}`], '@grafana/schema/dist/*': [`${version.dir}/dist/*`] },
    };
    const host = ts.createCompilerHost(options);
    const { readFile, fileExists, getSourceFile } = host;
    host.readFile = (file) => files.get(file)?.source ?? readFile(file);
    host.fileExists = (file) => files.has(file) || fileExists(file);
    host.getSourceFile = (file, ...rest) => {
      if (!parsed.has(file)) {
        parsed.set(file, files.has(file) ? ts.createSourceFile(file, files.get(file).source, options.target) : getSourceFile(file, ...rest));
      }
      return parsed.get(file);
    };
    const program = ts.createProgram([...files.keys()], options, host);
    for (const d of ts.getPreEmitDiagnostics(program)) {
      const message = ts.flattenDiagnosticMessageText(d.messageText, '\n    ');
      const file = files.get(d.file?.fileName);
      if (file === undefined) {
        // Not the dashboard's fault: the types themselves did not load.
        errors.push({ name: d.file?.fileName ?? 'typescript', where: version.name, message });
        continue;
      }
      const { line } = ts.getLineAndCharacterOfPosition(d.file, d.start);
      const part = file.parts.findLast((p) => p.line <= line);
      const at = file.source.split('\n')[line].trim();
      errors.push({ name: file.name, where: `${part?.label} (${version.name})`, message: `${message}\n    at: ${at}` });
    }
  }
  return merged(errors);
}

/** A mistake that every version reports in the same words is reported once. */
function merged(errors) {
  const byWords = new Map();
  for (const e of errors) {
    const key = JSON.stringify([e.name, e.where.replace(/ \(Grafana [\d.]+\)$/, ''), e.message]);
    const same = byWords.get(key);
    if (same) same.where = `${same.where.slice(0, -1)}, ${/Grafana [\d.]+/.exec(e.where.slice(e.where.lastIndexOf('(')))})`;
    else byWords.set(key, { ...e });
  }
  return [...byWords.values()];
}
