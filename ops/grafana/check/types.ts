// What the board may consist of, from Grafana's own types. `.ci/board` puts the board into a file beside this one and lets
// the compiler compare: a field that Grafana does not know, or a value that it does not take, is an error.
import type { Dashboard, FieldConfig, GraphFieldConfig, Panel as AnyPanel, RowPanel } from '@grafana/schema';
import type { Options as StatOptions } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as GraphOptions } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// A document has the values of an enum, where the types have its members.
type Plain<T> = T extends string
  ? `${T}`
  : T extends number
    ? number
    : T extends boolean | null | undefined
      ? T
      : unknown extends T
        ? T
        : { [K in keyof T]: Plain<T[K]> };

// A query of Prometheus. The package has no type for it.
type Query = {
  refId: string;
  datasource: { type: 'prometheus'; uid: string };
  expr: string;
  legendFormat: string;
  editorMode: 'code';
  range: boolean;
  instant: boolean;
};

type Panel<Kind extends string, Options, Custom> = Plain<Omit<AnyPanel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'datasource'>> & {
  type: Kind;
  datasource: Query['datasource'];
  options: Plain<Options>;
  fieldConfig: { defaults: Plain<Omit<FieldConfig, 'custom'>> & { custom?: Plain<Custom> }; overrides: [] };
  targets: Query[];
};

// Grafana numbers the panels of a board without ids when it is imported.
type Row = Plain<Omit<RowPanel, 'id' | 'panels' | 'datasource'>> & { panels: [] };

export type Board = Plain<Omit<Dashboard, 'panels'>> & {
  panels: (Panel<'stat', StatOptions, never> | Panel<'timeseries', GraphOptions, GraphFieldConfig> | Row)[];
};
