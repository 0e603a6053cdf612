// SPDX-License-Identifier: MIT OR Apache-2.0
// ws.js - the client of the package ws: node ws.js URL TOKEN MESSAGE... says each message when the one before it
// was answered, prints every frame that comes as a line, and closes. TOKEN "-": the server is an echo, for text and octets.
const WebSocket = require('ws');
const [url, token, ...messages] = process.argv.slice(2);
const echo = token === '-';
const s = new WebSocket(url, echo ? {} : { headers: { Authorization: `Bearer ${token}` } });
const next = () => {
  const m = messages.shift();
  if (m === undefined) return s.close(1000, 'bye');
  if (!echo) s.send(JSON.stringify({ type: 'message', content: m }));
  else s.send(m.startsWith('0x') ? Buffer.alloc(Number(m), 7) : m);
};
s.on('open', () => { console.log(JSON.stringify({ extensions: s.extensions })); s.ping('here'); });
s.on('pong', (data) => { console.log(JSON.stringify({ pong: String(data) })); next(); });
s.on('message', (data, binary) => {
  console.log(echo ? JSON.stringify({ binary, length: data.length, text: binary ? '' : String(data) }) : String(data));
  if (echo || JSON.parse(data).type === 'done') next();
});
s.on('close', (code) => console.log(JSON.stringify({ closed: code })));
s.on('unexpected-response', (_, r) => { console.log(JSON.stringify({ refused: r.statusCode })); process.exit(); });
