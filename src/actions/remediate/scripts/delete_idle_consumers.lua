-- ARGV: ..., consumer, its idle time at the plan
local name, idle = ARGV[3], tonumber(ARGV[4])
local found = consumer(name)
if not found then return refuse('the consumer is gone') end
if field(found, 'pending') ~= 0 then return refuse('the consumer holds entries') end
if field(found, 'idle') < idle then return refuse('the consumer is alive') end
if #redis.call('XPENDING', key, group, '-', '+', 1, name) > 0 then return refuse('the consumer holds entries') end
redis.call('XGROUP', 'DELCONSUMER', key, group, name)
return {'done', '', 1, 0}
