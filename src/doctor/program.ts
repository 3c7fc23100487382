import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { shellWord, singleLine } from '../base/plain-text.ts';
import { VERSION } from '../base/version.ts';
import type { Place } from '../setup/clients.ts';
import { findOnPath, realPathOf } from '../setup/command.ts';
import { adviceIn, check, type Check, pathName } from './report.ts';

export interface ProgramInput {
  readonly place: Place;
  readonly execPath: string;
  /** The path of this program, as the process was started. */
  readonly script: string;
  readonly nodeVersion: string;
  /** Why settings are invalid, one line each. */
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
  /** The configuration file that was read; undefined if there is none. */
  readonly configFile: string | undefined;
}

/** The program, its installation, and its settings. */
export function programChecks(input: ProgramInput): readonly Check[] {
  const { execPath, nodeVersion, problems, warnings, configFile } = input;
  const settings = [
    ...problems.map((problem) => settingCheck('broken', problem)),
    ...warnings.map((warning) => settingCheck('warn', warning)),
  ];
  const file = configFile === undefined ? 'no configuration file' : pathName(configFile);
  return [
    installCheck(input),
    check('ok', 'node', `${singleLine(nodeVersion, 40)}, ${pathName(execPath)}`),
    opencodeCheck(input),
    ...(settings.length > 0 ? settings : [check('ok', 'settings', file)]),
  ];
}

function settingCheck(verdict: 'broken' | 'warn', text: string): Check {
  const correct = { text: `correct it: ${text}` };
  return verdict === 'broken'
    ? check(verdict, 'settings', `${text}; until then no program starts with it`, { advice: correct })
    : check(verdict, 'settings', text, { advice: adviceIn(text) ?? correct });
}

function installCheck({ place, script }: ProgramInput): Check {
  const file = realPathOf(script) ?? script;
  const root = dirname(dirname(file));
  const how = existsSync(join(root, '.git')) ? 'from the checkout' : 'installed in';
  const text = `${VERSION}, ${how} ${pathName(root)}`;
  const onPath = findOnPath(place, 'opencode-mcp');
  if (onPath === undefined) return check('ok', 'opencode-mcp', `${text}; not on the PATH of this shell`);
  const target = realPathOf(onPath);
  if (target === file) return check('ok', 'opencode-mcp', text);
  return check('warn', 'opencode-mcp', `${text}; the PATH has another one: ${pathName(onPath)}`, {
    advice: {
      text: 'keep one of them; this installs the one that runs now',
      command: `npm install --global ${shellWord(root)}`,
    },
  });
}

/** A missing opencode is not a fault: a relay needs none. */
function opencodeCheck({ place }: ProgramInput): Check {
  const wanted = place.env['OPENCODE_BIN'] || 'opencode';
  const isPath = wanted.includes('/');
  const found = isPath ? realPathOf(wanted) : findOnPath(place, wanted);
  if (found !== undefined) return check('ok', 'opencode', pathName(found));
  return check(
    '-',
    'opencode',
    `there is no ${pathName(wanted)}${isPath ? '' : ' on the PATH'}; opencode-connected and attach need it: npm install --global opencode-ai, or set OPENCODE_BIN to its path`,
  );
}
