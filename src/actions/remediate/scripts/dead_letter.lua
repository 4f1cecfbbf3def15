-- ARGV: ..., id, owner, deliveries at the plan, milliseconds since the last delivery at least, reason
local id, owner, deliveries, idle, reason = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
local entry = redis.call('XPENDING', key, group, id, id, 1)[1]
if not entry then return refuse('the entry was acknowledged') end
if entry[2] ~= owner then return refuse('the entry has another owner') end
if tostring(entry[4]) ~= deliveries then return refuse('the entry was delivered again') end
if entry[3] < idle then return refuse('the entry was delivered only just now') end
local stored = redis.call('XRANGE', key, id, id)[1]
if not stored then return refuse('the payload of the entry is gone', 1) end
local fields = {
  'streamlag.stream', key, 'streamlag.group', group, 'streamlag.id', id, 'streamlag.consumer', owner,
  'streamlag.deliveries', deliveries, 'streamlag.reason', reason,
}
for _, part in ipairs(stored[2]) do fields[#fields + 1] = part end
-- If acknowledging is not allowed, this fails before there is a copy.
redis.call('XACK', key, group, '0-0')
redis.call('XADD', KEYS[2], '*', unpack(fields))
local acknowledged = redis.pcall('XACK', key, group, id)
if type(acknowledged) == 'table' then return failed(acknowledged, 1) end
return {'done', '', acknowledged, 0}
