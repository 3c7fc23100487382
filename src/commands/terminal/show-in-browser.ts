import { openBrowser } from '../../attach/browser.ts';
import type { Shell } from './shell.ts';

/** Opens the URL in the browser; prints it with `--print` or if there is no browser. */
export async function showInBrowser({ flags, print, tell, process }: Shell, url: string): Promise<void> {
  const { platform, env } = process;
  const isOpen = !flags.has('print') && (await openBrowser(url, { platform, env }));
  if (isOpen) return;
  if (!flags.has('print')) tell('No browser could be started from here; open this address in one:\n');
  print(`${url}\n`);
}
