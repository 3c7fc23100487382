import type { ChannelSettings } from '../../config/notify.ts';
import type { Channel, ChannelDeps } from './channel.ts';
import { commandChannel } from './command.ts';
import { desktopChannel } from './desktop.ts';
import { ntfyChannel } from './ntfy.ts';
import { webhookChannel } from './webhook.ts';

export function createChannel(settings: ChannelSettings, deps: ChannelDeps): Channel {
  switch (settings.type) {
    case 'ntfy':
      return ntfyChannel(settings, settings.text, deps);
    case 'webhook':
      return webhookChannel(settings, settings.text, deps);
    case 'command':
      return commandChannel(settings, settings.text, deps);
    case 'desktop':
      return desktopChannel(settings.text, deps);
  }
}
