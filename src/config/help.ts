import { type Program, type Row, rowsOf } from './options.ts';

/** The settings part of `--help`. */
export function settingsHelp(program: Program): string {
  const rows = rowsOf(program).map(
    (row) =>
      `  ${names(row)}\n      ${row.summary}${row.defaultText === undefined ? '' : ` (default: ${row.defaultText})`}`,
  );
  return [
    'Settings, as flag | environment variable | config file key, in order of precedence:',
    ...rows,
    'SECRET in the config file: a string, {"env": NAME}, {"file": PATH} or {"command": [PROGRAM, ARGUMENT, …]}.',
    '',
  ].join('\n');
}

function names(row: Row): string {
  return [flag(row), row.env, row.key].filter((name) => name !== undefined).join(' | ');
}

function flag(row: Row): string | undefined {
  if (row.flag === undefined) return undefined;
  return row.isSwitch ? `--${row.flag}, --no-${row.flag}` : `--${row.flag} ${row.placeholder}`;
}
