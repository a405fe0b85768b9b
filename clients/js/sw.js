// Carillon's service worker: shows what is pushed and reacts to clicks.
//
// Register it directly from the Carillon server's own origin, or from a worker
// of your own at any origin with one line:
//
//   importScripts('https://push.example.com/sdk/v1/sw.js');
//
// A push is JSON, as Declarative Web Push has it (W3C Push API):
//
//   {"web_push": 8030,
//    "notification": {"title", "body", "navigate", "icon", "image", "badge", "tag", "data",
//                     "lang", "dir", "silent", "actions": [{"action", "title", "icon", "navigate"}], ...},
//    "app_badge": 3,
//    "carillon": "dlv_..."}
//
// "carillon", the delivery's id, may be in notification.data instead.
// Every push shows a notification, even one that is empty or unreadable:
// browsers take the permission away from sites that receive silently.
//
// Pages of this origin are sent messages, {type, ...}:
//   carillon:push                {payload}                      something arrived and has been shown
//   carillon:click               {action, url, delivery, data}  a notification was clicked
//   carillon:subscriptionchange  {}                             the page must send its subscription again
(() => {
  'use strict';

  const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);
  const string = (v) => (typeof v === 'string' && v !== '' ? v : undefined);

  /** The absolute form of an http(s) address, relative to the scope; undefined for anything else. */
  function webURL(value) {
    if (!string(value)) return undefined;
    try {
      const url = new URL(value, self.registration.scope);
      return url.protocol === 'https:' || url.protocol === 'http:' ? url.href : undefined;
    } catch {
      return undefined;
    }
  }

  /** The members of a Notification as a plain object, which can be sent to pages. */
  function plain(notification) {
    const names = ['title', 'body', 'icon', 'image', 'badge', 'lang', 'dir', 'tag', 'navigate', 'silent', 'data'];
    return Object.fromEntries(names.map((name) => [name, notification[name]]));
  }

  /** What a push says. Never throws: text that is not JSON becomes the body. */
  function read({ data, notification, appBadge }) {
    // A browser that knows declarative pushes has read it already.
    if (!data && notification) return { notification: plain(notification), app_badge: appBadge };
    if (!data) return {};
    let text;
    try {
      text = data.text();
      const value = JSON.parse(text);
      if (isObject(value)) return value;
      if (value === null) return {};
      return { notification: { body: String(value) } };
    } catch {
      return { notification: { body: text } };
    }
  }

  /** The arguments of showNotification. Members of the wrong type are left out. */
  function describe(payload) {
    const n = isObject(payload.notification) ? payload.notification : payload;
    const actions = (Array.isArray(n.actions) ? n.actions : []).filter((a) => string(a?.action) && string(a?.title));
    const options = {
      body: string(n.body),
      icon: webURL(n.icon),
      image: webURL(n.image),
      badge: webURL(n.badge),
      lang: string(n.lang),
      dir: string(n.dir),
      tag: string(n.tag),
      // A notification that replaces another alerts again, unless told not to.
      renotify: string(n.tag) && n.renotify !== false ? true : undefined,
      silent: typeof n.silent === 'boolean' ? n.silent : undefined,
      requireInteraction: n.requireInteraction === true || n.require_interaction === true || undefined,
      timestamp: Number.isFinite(n.timestamp) ? n.timestamp : undefined,
      vibrate: Array.isArray(n.vibrate) && n.silent !== true ? n.vibrate : undefined,
      actions: actions.map((a) => ({ action: a.action, title: a.title, icon: webURL(a.icon) })),
      data: {
        url: webURL(n.navigate) ?? webURL(n.url) ?? null,
        // Always present, perhaps null: it marks the notification as Carillon's.
        delivery: string(payload.carillon) ?? string(n.data?.carillon) ?? null,
        data: n.data ?? null,
        actions: actions.map((a) => [a.action, webURL(a.navigate) ?? webURL(a.url) ?? null]),
      },
    };
    for (const name of Object.keys(options)) {
      if (options[name] === undefined) delete options[name];
    }
    // The site's name is a title in every language.
    return { title: string(n.title) ?? self.location.hostname, options };
  }

  /** Shows it; if the browser refuses an option, without the optional ones. */
  async function show(payload) {
    const { title, options } = describe(payload);
    try {
      await self.registration.showNotification(title, options);
    } catch {
      const { body, data } = options;
      await self.registration.showNotification(title, body === undefined ? { data } : { body, data });
    }
  }

  /** Sets the number on the installed app's icon, where there is such a thing. */
  async function badge(payload) {
    const count = payload.app_badge ?? payload.notification?.app_badge;
    if (!Number.isInteger(count) || count < 0 || !self.navigator?.setAppBadge) return;
    await self.navigator.setAppBadge(count).catch(() => {});
  }

  const windows = () => self.clients.matchAll({ type: 'window', includeUncontrolled: true });

  /** Messages all pages. Failing to do so matters to nobody. */
  async function tell(message) {
    try {
      for (const client of await windows()) client.postMessage(message);
    } catch {
      // A page that just closed.
    }
  }

  /** Brings the page to the front if it is open, else opens it. Without a url: any page of the scope. */
  async function open(url) {
    const scope = self.registration.scope;
    const page = (await windows()).find((c) => (url ? c.url === url : c.url.startsWith(scope)));
    if (page) {
      try {
        return await page.focus();
      } catch {
        // It closed meanwhile, or the browser does not let it have the focus.
      }
    }
    return self.clients.openWindow(url ?? scope);
  }

  /** Subscribes again with the old key when the browser has dropped or replaced the subscription. */
  async function resubscribe(event) {
    const options = event.oldSubscription?.options;
    if (!event.newSubscription && options?.applicationServerKey) {
      try {
        await self.registration.pushManager.subscribe({
          userVisibleOnly: true,
          applicationServerKey: options.applicationServerKey,
        });
      } catch {
        // Permission is gone, or the page has been quicker; its refresh() finds out.
      }
    }
    // Only a page has the user's token, so a page tells the server: this one now, or the next that loads.
    await tell({ type: 'carillon:subscriptionchange' });
  }

  self.addEventListener('push', (event) => {
    const payload = read(event);
    // Pages hear of it when it is up, or could not be shown.
    const done = show(payload).finally(() => tell({ type: 'carillon:push', payload }));
    event.waitUntil(Promise.all([done, badge(payload)]));
  });

  self.addEventListener('notificationclick', (event) => {
    const own = event.notification.data;
    if (!isObject(own) || !('delivery' in own)) return; // the site's own notification
    event.notification.close();
    const action = event.action || '';
    const byAction = new Map(Array.isArray(own.actions) ? own.actions : []);
    const url = webURL(byAction.get(action)) ?? webURL(own.url);
    const message = { type: 'carillon:click', action, url: url ?? null, delivery: own.delivery, data: own.data };
    event.waitUntil(Promise.all([open(url), tell(message)]));
  });

  self.addEventListener('pushsubscriptionchange', (event) => event.waitUntil(resubscribe(event)));
})();
