import { ReportedError } from '../../base/program.ts';
import { runBriefly } from '../run-briefly.ts';

export type OpencodeGeneration =
  | { readonly number: 1; readonly version?: string }
  /** One service for each user. The preview does not report `version`. */
  | { readonly number: 2; readonly version?: string; readonly isPreview?: true };

/** `--version` answers in a second, on a busy machine in ten. */
const LIMIT_MS = 30_000;

/**
 * Asks the program itself. A program that prints no version, such as a script, counts as generation 1. Rejects if it does not
 * end: an OpenCode 2 that is started as generation 1 could serve the same sessions as the service.
 */
export async function askGeneration(
  program: string,
  env: Readonly<Record<string, string>>,
): Promise<OpencodeGeneration> {
  const { code, output, isLate } = await runBriefly(program, ['--version'], env, {
    limitMs: LIMIT_MS,
    signalsAll: true,
  });
  if (isLate) throw new ReportedError(`${program} --version did not end within ${LIMIT_MS / 1000} s; run it by hand`);
  return code === 0 ? readGeneration(output) : { number: 1 };
}

/** OpenCode 1 prints its version alone; OpenCode 2 its name and a `v` before it, the preview `lildax vlocal`. Pure. */
export function readGeneration(output: string): OpencodeGeneration {
  const [, name, text = ''] = /^(?:(\S+) )?v?(\S+)$/.exec(output.trim().split('\n').at(-1) ?? '') ?? [];
  const version = /^\d{1,6}\.\d{1,6}\.\d{1,6}(?:[-+][\w.+-]{0,64})?$/.test(text) ? text : undefined;
  if (name === 'lildax') return { number: 2, isPreview: true };
  const known = version !== undefined && { version };
  const isSecond = Number(version?.split('.', 1)[0] ?? 0) >= 2 || (name === 'opencode' && version !== undefined);
  return { number: isSecond ? 2 : 1, ...known };
}
