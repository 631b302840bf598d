-- KEYS: the item. ARGV: version, item ('' = none), the time before which this may happen, the time the entry ends.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[3]) then
  return 'too late'
end
local held = redis.call('HGET', KEYS[1], 'version')
if held and tonumber(held) >= tonumber(ARGV[1]) then
  return 'not newer'
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'item', ARGV[2])
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
return 'stored'
