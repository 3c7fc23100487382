import { existsSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { quoteName, shellWord, singleLine } from '../base/plain-text.ts';
import { VERSION } from '../base/version.ts';
import type { Place } from '../setup/clients.ts';
import { findOnPath } from '../setup/command.ts';
import { adviceIn, check, type Check } from './report.ts';

export interface ProgramInput {
  readonly place: Place;
  readonly execPath: string;
  /** As the process was started. */
  readonly script: string;
  readonly nodeVersion: string;
  /** Why the settings cannot be used as they are written, one line each. */
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
  /** The configuration file that was read, if there is one. */
  readonly configFile: string | undefined;
}

const MAX_PATH_CHARS = 300;

/** What runs here, how it was installed, and with which settings. */
export function programChecks(input: ProgramInput): readonly Check[] {
  const { execPath, nodeVersion, problems, warnings, configFile } = input;
  const settings = [
    ...problems.map((problem) => settingCheck('broken', problem)),
    ...warnings.map((warning) => settingCheck('warn', warning)),
  ];
  const file = configFile === undefined ? 'no configuration file' : shown(configFile);
  return [
    installCheck(input),
    check('ok', 'node', `${singleLine(nodeVersion, 40)}, ${shown(execPath)}`),
    opencodeCheck(input),
    ...(settings.length > 0 ? settings : [check('ok', 'settings', file)]),
  ];
}

function settingCheck(verdict: 'broken' | 'warn', text: string): Check {
  const advice = adviceIn(text) ?? { text: `correct it: ${text}` };
  const isBroken = verdict === 'broken';
  return check(verdict, 'settings', isBroken ? `${text}; until then no program starts with it` : text, {
    advice: isBroken ? { text: `correct it: ${text}` } : advice,
  });
}

function installCheck({ place, script }: ProgramInput): Check {
  const file = realPathOf(script) ?? script;
  const root = dirname(dirname(file));
  const how = existsSync(join(root, '.git')) ? 'from the checkout' : 'installed in';
  const text = `${VERSION}, ${how} ${shown(root)}`;
  const onPath = findOnPath(place, 'opencode-mcp');
  if (onPath === undefined) return check('ok', 'opencode-mcp', `${text}; not on the PATH of this shell`);
  const target = realPathOf(onPath);
  if (target === file) return check('ok', 'opencode-mcp', text);
  return check('warn', 'opencode-mcp', `${text}; the one on the PATH is another: ${shown(onPath)}`, {
    advice: {
      text: 'keep one of them: take the other out of the PATH',
      command: `npm install --global ${shellWord(root)}`,
    },
  });
}

/** Nothing is broken without it: a relay has none. */
function opencodeCheck({ place }: ProgramInput): Check {
  const wanted = place.env['OPENCODE_BIN'] || 'opencode';
  const isPath = wanted.includes('/');
  const found = isPath ? realPathOf(wanted) : findOnPath(place, wanted);
  if (found !== undefined) return check('ok', 'opencode', shown(found));
  return check(
    '-',
    'opencode',
    `there is no ${shown(wanted)}${isPath ? '' : ' on the PATH'}; opencode-connected and attach need one: npm install --global opencode-ai, or set OPENCODE_BIN to its path`,
  );
}

function realPathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function shown(path: string): string {
  return quoteName(singleLine(path, MAX_PATH_CHARS));
}
