// SPDX-License-Identifier: MIT OR Apache-2.0
// openai.js - the client of npm's package openai: node openai.js BASE KEY MODEL does what its users do, and prints as
// one object what came of it.
const OpenAI = require('openai');
const [baseURL, apiKey, model] = process.argv.slice(2);
const user = (content) => ({ role: 'user', content });
const tools = [{ type: 'function', function: { name: 'weather', description: 'Looks outside.', parameters: {
  type: 'object', properties: { town: { type: 'string' } } } } }];

async function main() {
  const c = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const out = { models: [], texts: [], streamed: '', events: [], errors: [] };
  for await (const m of c.models.list()) out.models.push(m.id);
  const history = [];
  for (const text of ['say one', 'echo history']) {
    history.push(user(text));
    const done = await c.chat.completions.create({ model: 'blufio', messages: history });
    history.push(done.choices[0].message);
    out.texts.push(done.choices[0].message.content);
  }
  const stream = await c.chat.completions.create({ model, messages: [user('words 60')], stream: true,
    stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    out.streamed += chunk.choices[0]?.delta?.content || '';
    if (chunk.usage) out.usage = chunk.usage.total_tokens;
  }
  const asked = [user('Take an umbrella?')];
  const runner = c.chat.completions.stream({ model: 'blufio', messages: asked, tools });
  const message = await runner.finalMessage();
  const call = message.tool_calls[0];
  out.call = { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
  asked.push(message, { role: 'tool', tool_call_id: call.id, content: 'rain' });
  out.after = (await c.chat.completions.create({ model: 'blufio', messages: asked, tools })).choices[0].message.content;
  const first = await c.responses.create({ model: 'blufio', input: 'say one' });
  out.response = first.output_text;
  out.next = (await c.responses.create({ model: 'blufio', input: 'echo history', previous_response_id: first.id })).output_text;
  for await (const e of await c.responses.create({ model: 'blufio', input: 'words 40', stream: true })) out.events.push(e.type);
  const bad = [() => new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 }).models.list(),
    () => c.chat.completions.create({ model: 'gpt-4o', messages: [user('x')] }),
    () => c.chat.completions.create({ model, messages: [user('x')], n: 2 })];
  for (const act of bad) await act().then(() => out.errors.push(null), (e) => out.errors.push([e.status, e.code]));
  console.log(JSON.stringify(out));
}
main();
