-- ARGV: ..., consumer, its idle time and pending entries at the plan, who takes over, entries at most
local name, idle, pending, to, most = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local found, taker = consumer(name), consumer(to)
if not found then return refuse('the consumer is gone') end
if not taker then return refuse('the consumer that was to take over is gone') end
if field(found, 'idle') < idle then return refuse('the consumer is alive') end
if field(found, 'pending') ~= pending then return refuse('the consumer holds another number of entries') end
if field(taker, 'idle') >= idle then return refuse('the consumer that was to take over is not alive') end
local moved, passed, last = {}, 0, nil
repeat
  local is_over = true
  -- Before 6.2 a range cannot begin behind an id: the last one comes again.
  for _, entry in ipairs(redis.call('XPENDING', key, group, last or '-', '+', most + 1, name)) do
    if entry[2] ~= name then return refuse('an entry has another owner') end
    if entry[1] ~= last and #moved < most then
      is_over, last = false, entry[1]
      -- An entry without payload is left: claiming it would drop it. It does not block those behind it.
      if #redis.call('XRANGE', key, last, last) > 0 then moved[#moved + 1] = entry else passed = passed + 1 end
    end
  end
until is_over or #moved == most or passed >= MAX_PASSED
if #moved == 0 then
  local of = passed < pending and 'its first ' .. passed or 'its'
  return refuse('none of ' .. of .. ' entries has a payload', passed)
end
local count = 0
for _, entry in ipairs(moved) do
  local claimed = redis.pcall('XCLAIM', key, group, to, 0, entry[1], 'IDLE', entry[3], 'RETRYCOUNT', entry[4], 'JUSTID')
  if claimed.err then return failed(claimed, count) end
  count = count + #claimed
end
return {'done', '', count, passed}
