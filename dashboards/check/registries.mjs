// The ids Grafana itself knows, read out of @grafana/data: units, reducers, transformations, field matchers. The schema types leave them as plain strings,
// and a wrong one fails silently in the browser. The package is the oldest version supported, since newer ones have only added to these.

import { createRequire } from 'node:module';

// @grafana/data is written for browsers and looks at these while it loads; nothing here is ever drawn.
const nothing = () => {};
const element = () => ({ style: {}, appendChild: nothing, setAttribute: nothing });
globalThis.window ??= globalThis;
globalThis.document ??= { createElement: element, createTextNode: element, getElementsByTagName: () => [], addEventListener: nothing, head: element(), body: element(), documentElement: element() };
globalThis.navigator ??= { language: 'en', languages: ['en'], userAgent: '', platform: '' };
globalThis.location ??= { href: 'http://localhost/', search: '' };
globalThis.localStorage ??= { getItem: () => null, setItem: nothing, removeItem: nothing };

const grafana = createRequire(import.meta.url)('@grafana/data');

const UNITS = new Set(grafana.getValueFormats().flatMap((category) => category.submenu.map((format) => format.value)));
// Units made up by the dashboard's author: "count:entries/s" and so on.
const CUSTOM_UNIT = /^(prefix|suffix|time|si|count|currency|bool):.+$/;

export const isUnit = (id) => UNITS.has(id) || CUSTOM_UNIT.test(id);
export const isReducer = (id) => grafana.fieldReducers.getIfExists(id) !== undefined;
export const TRANSFORMERS = new Set(Object.values(grafana.standardTransformers).map((t) => t.id));
export const MATCHERS = new Set(grafana.fieldMatchers.list().map((m) => m.id));
