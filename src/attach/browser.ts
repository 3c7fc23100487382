import { spawn } from 'node:child_process';
import { release } from 'node:os';

type Environment = Readonly<Record<string, string | undefined>>;

/** Programs that open a URL in the user's browser, best first; empty without a display. */
export function openers({ platform, env, kernel = release() }: Surroundings): readonly string[] {
  if (platform === 'darwin') return ['open'];
  if (/microsoft/i.test(kernel)) return ['wslview', 'xdg-open'];
  return env['DISPLAY'] || env['WAYLAND_DISPLAY'] ? ['xdg-open'] : [];
}

export interface Surroundings {
  readonly platform: NodeJS.Platform;
  readonly env: Environment;
  /** The kernel's release, which names WSL. */
  readonly kernel?: string;
}

/** Whether a browser opened the URL. It is detached, and outlives this program. */
export async function openBrowser(url: string, surroundings: Surroundings): Promise<boolean> {
  for (const opener of openers(surroundings)) if (await runs(opener, url, surroundings.env)) return true;
  return false;
}

/** An opener returns at once; one that still runs after this has become the browser. */
const LONG_MS = 3_000;

function runs(opener: string, url: string, env: Environment): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(opener, [url], { stdio: 'ignore', detached: true, env });
    const long = setTimeout(() => resolve(true), LONG_MS);
    const settle = (isOpen: boolean): void => {
      clearTimeout(long);
      resolve(isOpen);
    };
    child.once('error', () => settle(false)).once('exit', (code) => settle(code === 0));
    child.unref();
  });
}
