import { jsonOf, messageOf } from '../../base/errors.ts';
import type { Settings } from '../../config/settings.ts';
import type { ExitCode } from '../status/places.ts';
import { SURVEY_FORMAT, type SurveyRequest, surveyRequest } from './registry-survey.ts';
import { localRegistry } from './registry.ts';

export interface SurveyOptions {
  readonly settings: Pick<Settings, 'registryDir' | 'stateDir'>;
  /** A `SurveyRequest` as JSON. Undefined: survey the directory of the settings. */
  readonly request: NodeJS.ReadableStream | undefined;
  readonly out: (text: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Prints the contents of a registry directory of this machine as one line of JSON: `{"survey": …}`; `{"removals": …}` if the request
 * has orders; or `{"error": …}`, with exit code 1. `opencode-connected` on other machines runs it over SSH.
 */
export async function runSurvey({ settings, request, out, signal }: SurveyOptions): Promise<ExitCode> {
  const print = (answer: object): void => out(`${JSON.stringify(answer)}\n`);
  try {
    const asked = request && (await read(request));
    const registryDir = asked ? { path: asked.directory, explicit: !asked.isDefault } : settings.registryDir;
    const registry = localRegistry({ registryDir, stateDir: settings.stateDir });
    print(
      asked?.orders === undefined
        ? { survey: await registry.survey(signal) }
        : { removals: await registry.remove(asked.orders, signal) },
    );
    return 0;
  } catch (error) {
    print({ error: messageOf(error) });
    return 1;
  }
}

/** Orders for as many registrations as are read take some 4 MB. */
const MAX_REQUEST_BYTES = 16 * 1024 * 1024;

async function read(stream: NodeJS.ReadableStream): Promise<SurveyRequest> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    const piece = Buffer.from(chunk);
    bytes += piece.length;
    if (bytes > MAX_REQUEST_BYTES)
      throw new Error(`the request on standard input has more than ${MAX_REQUEST_BYTES} bytes`);
    chunks.push(piece);
  }
  const parsed = surveyRequest.safeParse(jsonOf(Buffer.concat(chunks).toString('utf8')));
  if (parsed.success) return parsed.data;
  throw new Error(
    `the request on standard input is of a kind that this version does not know (format ${SURVEY_FORMAT}); upgrade the older opencode-connected of the two`,
  );
}
