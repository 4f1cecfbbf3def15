-- ARGV: ..., consumer, its idle time and pending entries at the plan, who takes over, entries at most
local name, idle, pending, to, most = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local found, taker = consumer(name), consumer(to)
if not found then return refuse('the consumer is gone') end
if not taker then return refuse('the consumer that was to take over is gone') end
if field(found, 'idle') < idle then return refuse('the consumer is alive') end
if field(found, 'pending') ~= pending then return refuse('the consumer holds another number of entries') end
if field(taker, 'idle') >= idle then return refuse('the consumer that was to take over is not alive') end
local moved = {}
for _, entry in ipairs(redis.call('XPENDING', key, group, '-', '+', most, name)) do
  if entry[2] ~= name then return refuse('an entry has another owner') end
  -- An entry without payload is left: claiming it would drop it.
  if #redis.call('XRANGE', key, entry[1], entry[1]) > 0 then moved[#moved + 1] = entry end
end
if #moved == 0 then return refuse('none of its entries has a payload') end
local count = 0
for _, entry in ipairs(moved) do
  local claimed = redis.call('XCLAIM', key, group, to, 0, entry[1], 'IDLE', entry[3], 'RETRYCOUNT', entry[4], 'JUSTID')
  count = count + #claimed
end
return {'done', '', count}
