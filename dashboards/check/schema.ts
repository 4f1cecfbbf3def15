// The dashboard file's types, made from those Grafana publishes in @grafana/schema. types.mjs compiles every dashboard against this file,
// once per Grafana version: "@grafana/schema" below is whichever version it is checking.
//
// Stricter than Grafana's own `Dashboard`, which leaves a panel's options, custom field config, queries and overrides as Record<string,
// unknown>: here each visualization gets its own types, so a key Grafana does not know is an error at any depth.

import type * as schema from '@grafana/schema';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as stateTimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** T as JSON can write it: an enum becomes the union of its values, everything else stays as strict as it was. */
export type Json<T> = unknown extends T ? T
  : T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : never)
  : T extends boolean | null | undefined ? T
  : T extends Array<infer E> ? Json<E>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;

/** Always the dashboard's own data source variable: anything else would not import without editing. */
type DataSource = { type: 'prometheus'; uid: '${datasource}' };

/** A Prometheus query. The package carries this type only up to Grafana 10, and the model has only grown since; so it is written out here. */
interface Query {
  datasource: DataSource;
  editorMode: 'code';
  expr: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  legendFormat?: string;
  range: boolean;
  refId: string;
}

type Standard = Omit<schema.FieldConfig, 'custom' | 'links'>;
type Required1<T> = { [K in keyof T]-?: NonNullable<T[K]> };

/** Field overrides: the value's type follows from the property's id. */
type Property<Custom> =
  // The schema leaves links open; these are the keys of @grafana/data's DataLink that are used.
  | { id: 'links'; value: { title: string; url: string; targetBlank: boolean }[] }
  | { [K in keyof Required1<Standard> & string]: { id: K; value: Json<Required1<Standard>[K]> } }[keyof Standard & string]
  | { [K in keyof Required1<Custom> & string]: { id: `custom.${K}`; value: Json<Required1<Custom>[K]> } }[keyof Custom & string];
type Override<Custom> = {
  matcher: { id: 'byName' | 'byRegexp' | 'byFrameRefID'; options: string };
  properties: Property<Custom>[];
};

type Transformation =
  | { id: 'merge'; options: {} }
  | {
      id: 'organize';
      options: { excludeByName: Record<string, boolean>; indexByName: Record<string, number>; renameByName: Record<string, string> };
    };

type PanelOf<Type extends string, Options, Custom> = Required<Json<Pick<schema.Panel, 'id' | 'gridPos' | 'title' | 'description'>>> &
  Json<Omit<schema.Panel, 'id' | 'gridPos' | 'title' | 'description' | 'type' | 'datasource' | 'targets' | 'options' | 'fieldConfig' | 'transformations'>> & {
    type: Type;
    datasource: DataSource;
    targets: Query[];
    options: Json<Options>;
    fieldConfig: { defaults: Json<Standard> & { custom?: Json<Custom> }; overrides: Override<Custom>[] };
    transformations?: Transformation[];
  };

/** One entry per visualization in use. A dashboard that wants another one adds it here. */
export interface Panels {
  // percentChangeColorMode came with Grafana 11 as a required option. 10 does not know it and later ones fill it in.
  stat: PanelOf<'stat', Omit<stat.Options, 'percentChangeColorMode'>, {}>;
  'state-timeline': PanelOf<'state-timeline', stateTimeline.Options, stateTimeline.FieldConfig>;
  table: PanelOf<'table', table.Options, table.FieldConfig>;
  timeseries: PanelOf<'timeseries', timeSeries.Options, timeSeries.FieldConfig>;
  // Without its panels: they are checked one by one, as those outside rows are.
  row: Json<Omit<schema.RowPanel, 'panels' | 'datasource'>> & { panels: never[] };
}

interface DataSourceVariableExtras {
  type: 'datasource';
  query: 'prometheus';
}
interface QueryVariableExtras {
  type: 'query';
  datasource: DataSource;
  query: { qryType: 1; query: string; refId: string };
}
type VariableBase = Json<Omit<schema.VariableModel, 'type' | 'datasource' | 'query'>>;
export type Variable = (VariableBase & DataSourceVariableExtras) | (VariableBase & QueryVariableExtras);

export type Annotation = Json<Omit<schema.AnnotationQuery, 'datasource' | 'target'>> & {
  datasource: DataSource;
  target: { editorMode: 'code'; expr: string; refId: string };
  // The Prometheus plugin keeps these beside the query; the schema does not describe what a plugin adds.
  titleFormat: string;
  textFormat: string;
  tagKeys: string;
  useValueForTime: boolean;
};

/** Everything but the panels, variables and annotations, which are checked one by one so that an error names the one it is in. */
export type Frame = Json<Omit<schema.Dashboard, 'panels' | 'templating' | 'annotations' | 'id'>> & {
  id: null;
  uid: string;
  title: string;
  editable: true;
  schemaVersion: number;
};

/** The same objects as the published types see them, un-narrowed. */
export type PublishedDashboard = Json<Omit<schema.Dashboard, 'panels' | 'annotations'>> & {
  panels: Json<schema.Panel | schema.RowPanel>[];
};
