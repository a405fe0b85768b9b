// The service worker against small fakes of what a browser gives it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

const source = readFileSync(new URL('../sw.js', import.meta.url), 'utf8');
const SCOPE = 'https://app.example/shop/';

/** A worker that runs, with what it did: shown, messages, opened, focused, badges, subscribed. */
function worker({ pages = [], refuse = () => false, focus = () => {}, subscribe = async () => ({}) } = {}) {
  const did = { shown: [], messages: [], opened: [], focused: [], badges: [], subscribed: [] };
  const listeners = {};
  const windows = pages.map((url) => ({
    url,
    postMessage: (message) => did.messages.push(message),
    focus: async () => {
      focus();
      did.focused.push(url);
    },
  }));
  const self = {
    location: new URL('https://app.example/sw.js'),
    addEventListener: (type, listener) => (listeners[type] = listener),
    navigator: { setAppBadge: async (n) => did.badges.push(n) },
    clients: {
      matchAll: async (query) => {
        assert.deepEqual(query, { type: 'window', includeUncontrolled: true });
        return windows;
      },
      openWindow: async (url) => did.opened.push(url),
    },
    registration: {
      scope: SCOPE,
      showNotification: async (title, options) => {
        if (refuse(options)) throw new TypeError('refused');
        did.shown.push({ title, options });
      },
      pushManager: {
        subscribe: async (options) => {
          did.subscribed.push(options);
          return subscribe(options);
        },
      },
    },
  };
  new Function('self', source)(self);

  const fire = async (type, event) => {
    let work;
    listeners[type]({ ...event, waitUntil: (promise) => (work = promise) });
    await work;
    return work !== undefined;
  };
  return {
    did,
    fire,
    push: (payload) => fire('push', { data: payload === undefined ? null : { text: () => payload } }),
    click: (notification, action = '') => fire('notificationclick', { notification, action }),
  };
}

const shown = async (payload, given) => {
  const w = worker(given);
  await w.push(typeof payload === 'string' || payload === undefined ? payload : JSON.stringify(payload));
  assert.equal(w.did.shown.length, 1, 'every push shows exactly one notification');
  return w.did.shown[0];
};

test('a declarative payload is shown with its options', async () => {
  const { title, options } = await shown({
    web_push: 8030,
    notification: {
      title: 'Parcel',
      body: 'On its way',
      icon: '/icon.png',
      image: 'https://cdn.example/map.png',
      badge: 'https://app.example/badge.png',
      tag: 'parcel-7',
      lang: 'en',
      dir: 'ltr',
      silent: false,
      requireInteraction: true,
      timestamp: 1700000000000,
      navigate: 'orders/7',
      data: { order: 7 },
      actions: [{ action: 'track', title: 'Track', navigate: '/track/7' }, { action: 'broken' }],
    },
    carillon: 'dlv_1',
  });
  assert.equal(title, 'Parcel');
  assert.deepEqual(options, {
    body: 'On its way',
    icon: 'https://app.example/icon.png',
    image: 'https://cdn.example/map.png',
    badge: 'https://app.example/badge.png',
    lang: 'en',
    dir: 'ltr',
    tag: 'parcel-7',
    renotify: true,
    silent: false,
    requireInteraction: true,
    timestamp: 1700000000000,
    actions: [{ action: 'track', title: 'Track', icon: undefined }],
    data: {
      url: 'https://app.example/shop/orders/7',
      delivery: 'dlv_1',
      data: { order: 7 },
      actions: [['track', 'https://app.example/track/7']],
    },
  });
});

test('the same without web_push', async () => {
  const { title, options } = await shown({ notification: { title: 'T', tag: 't', renotify: false }, carillon: 'dlv_2' });
  assert.equal(title, 'T');
  assert.equal(options.data.delivery, 'dlv_2');
  assert.equal('renotify' in options, false);
  assert.equal('body' in options, false);
});

test('renotify needs a tag', async () => {
  const { options } = await shown({ notification: { title: 'T', renotify: true } });
  assert.equal('renotify' in options, false);
});

for (const [name, payload, body] of [
  ['no payload', undefined, undefined],
  ['an empty payload', '', undefined],
  ['plain text', 'Dinner is ready', 'Dinner is ready'],
  ['cut JSON', '{"notification":{"ti', '{"notification":{"ti'],
  ['a JSON string', '"Hello"', 'Hello'],
  ['a JSON number', '7', '7'],
  ['null', 'null', undefined],
  ['an empty object', '{}', undefined],
  ['members of wrong types', '{"notification":{"title":[],"body":{},"actions":7,"icon":5},"carillon":3}', undefined],
]) {
  test(`shows a notification for ${name}`, async () => {
    const { title, options } = await shown(payload);
    assert.equal(title, 'app.example');
    assert.equal(options.body, body);
    assert.equal(options.data.delivery, null);
  });
}

test('an unreadable payload is shown too', async () => {
  const w = worker();
  await w.fire('push', {
    data: {
      text: () => {
        throw new Error('unreadable');
      },
    },
  });
  assert.equal(w.did.shown[0].title, 'app.example');
});

test('a declarative push that the browser has read itself', async () => {
  class Notification {
    get title() {
      return 'Parcel';
    }
    get navigate() {
      return 'https://app.example/x';
    }
    get data() {
      return { carillon: 'dlv_3', order: 7 };
    }
  }
  const w = worker({ pages: [SCOPE] });
  await w.fire('push', { data: null, notification: new Notification(), appBadge: 2 });
  const [{ title, options }] = w.did.shown;
  assert.equal(title, 'Parcel');
  assert.equal(options.data.url, 'https://app.example/x');
  assert.equal(options.data.delivery, 'dlv_3');
  assert.deepEqual(w.did.badges, [2]);
  assert.equal(structuredClone(w.did.messages[0]).payload.notification.title, 'Parcel');
});

test('options that the browser refuses are left out', async () => {
  const { title, options } = await shown(
    { notification: { title: 'T', body: 'B', dir: 'sideways', navigate: '/x' } },
    { refuse: (o) => 'dir' in o },
  );
  assert.equal(title, 'T');
  assert.deepEqual(Object.keys(options), ['body', 'data']);
  assert.equal(options.data.url, 'https://app.example/x');
});

test('pages are told of a push, and the badge is set', async () => {
  const w = worker({ pages: [SCOPE] });
  const payload = { notification: { title: 'T' }, app_badge: 3 };
  await w.push(JSON.stringify(payload));
  assert.deepEqual(w.did.messages, [{ type: 'carillon:push', payload }]);
  assert.deepEqual(w.did.badges, [3]);
});

test('pages are told even if nothing could be shown', async () => {
  const w = worker({ pages: [SCOPE], refuse: () => true });
  await assert.rejects(w.push('x'), TypeError);
  assert.equal(w.did.messages.length, 1);
});

const notification = (data) => {
  const n = { data, closed: false, close: () => (n.closed = true) };
  return n;
};

test('a click focuses the page that is open', async () => {
  const w = worker({ pages: [SCOPE, 'https://app.example/x'] });
  const n = notification({ url: 'https://app.example/x', delivery: 'dlv_1', data: { a: 1 } });
  await w.click(n);
  assert.equal(n.closed, true);
  assert.deepEqual(w.did.focused, ['https://app.example/x']);
  assert.deepEqual(w.did.opened, []);
  assert.deepEqual(w.did.messages[0], {
    type: 'carillon:click',
    action: '',
    url: 'https://app.example/x',
    delivery: 'dlv_1',
    data: { a: 1 },
  });
});

test('a click opens a page that is not open', async () => {
  const w = worker({ pages: [SCOPE] });
  await w.click(notification({ url: 'https://elsewhere.example/y', delivery: null }));
  assert.deepEqual(w.did.opened, ['https://elsewhere.example/y']);
  assert.deepEqual(w.did.focused, []);
});

test('a page that cannot be focused is opened', async () => {
  const refused = () => {
    throw new Error('not allowed');
  };
  const w = worker({ pages: [SCOPE], focus: refused });
  await w.click(notification({ url: SCOPE, delivery: null }));
  assert.deepEqual(w.did.opened, [SCOPE]);
});

test('a click without an address goes to the site', async () => {
  const open = worker({ pages: [`${SCOPE}cart`] });
  await open.click(notification({ url: null, delivery: null }));
  assert.deepEqual(open.did.focused, [`${SCOPE}cart`]);
  const closed = worker();
  await closed.click(notification({ url: null, delivery: null }));
  assert.deepEqual(closed.did.opened, [SCOPE]);
});

test('an action has its own address, or that of the notification', async () => {
  const data = { url: 'https://app.example/x', delivery: null, actions: [['track', 'https://app.example/t'], ['mute', null]] };
  const w = worker();
  await w.click(notification(data), 'track');
  await w.click(notification(data), 'mute');
  assert.deepEqual(w.did.opened, ['https://app.example/t', 'https://app.example/x']);
});

for (const navigate of ['javascript:alert(1)', 'data:text/html,x', 'file:///etc/passwd', 'http://', 7]) {
  test(`${navigate} is not opened`, async () => {
    const { options } = await shown({ notification: { title: 'T', navigate, actions: [{ action: 'a', title: 'A', navigate }] } });
    assert.equal(options.data.url, null);
    const w = worker();
    await w.click(notification(options.data), 'a');
    // Nor if somebody else made the notification.
    await w.click(notification({ delivery: null, url: navigate }));
    assert.deepEqual(w.did.opened, [SCOPE, SCOPE]);
  });
}

test("the site's own notifications are left alone", async () => {
  const w = worker();
  for (const data of [undefined, null, 'text', { url: 'https://app.example/x' }]) {
    const n = notification(data);
    assert.equal(await w.click(n), false);
    assert.equal(n.closed, false);
  }
  assert.deepEqual(w.did.opened, []);
});

const oldSubscription = { options: { applicationServerKey: new Uint8Array([4, 1]) } };
const changed = [{ type: 'carillon:subscriptionchange' }];

test('a dropped subscription is made anew with the old key', async () => {
  const w = worker({ pages: [SCOPE] });
  await w.fire('pushsubscriptionchange', { oldSubscription, newSubscription: null });
  assert.deepEqual(w.did.subscribed, [{ userVisibleOnly: true, applicationServerKey: new Uint8Array([4, 1]) }]);
  assert.deepEqual(w.did.messages, changed);
});

test('a replaced subscription is only told of', async () => {
  const w = worker({ pages: [SCOPE] });
  await w.fire('pushsubscriptionchange', { oldSubscription, newSubscription: {} });
  assert.deepEqual(w.did.subscribed, []);
  assert.deepEqual(w.did.messages, changed);
});

test('pages are told even if the old key is unknown or subscribing fails', async () => {
  const unknown = worker({ pages: [SCOPE] });
  await unknown.fire('pushsubscriptionchange', {});
  assert.deepEqual(unknown.did.messages, changed);
  const failing = worker({ pages: [SCOPE], subscribe: () => Promise.reject(new Error('no permission')) });
  await failing.fire('pushsubscriptionchange', { oldSubscription });
  assert.deepEqual(failing.did.messages, changed);
});
