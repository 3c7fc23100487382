import { setFlagsFromString } from 'node:v8';

/**
 * This process lives for days beside an editor and works for milliseconds at a time: memory counts for more than the last
 * bit of speed. V8 otherwise lets the young generation grow to 16 MB a half for one large answer and keeps it (Node 20.20).
 * Imported first, before anything has allocated much.
 */
setFlagsFromString('--optimize-for-size');
setFlagsFromString('--semi-space-growth-factor=1');
