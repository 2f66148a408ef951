-- Stores what the leader has learned, and sets the learned limits to these and no
-- others.
--
-- KEYS as in observe.lua
-- ARGV: EPOCH, STATE; COUNT, then FIELD (k:…) VALUE each
-- Returns: 1, or 0 if that epoch is over

local learned = KEYS[4]
local epoch, text = take(), take()
if string.match(redis.call('HGET', state, 'k:lead') or '', '^%d+') ~= epoch then
  return 0
end
local limits = {}
for _ = 1, num() do
  local field, value = take(), take()
  limits[field] = true
  redis.call('HSET', state, field, value)
end
for _, field in ipairs(redis.call('HKEYS', state)) do
  if string.sub(field, 1, 2) == 'k:' and field ~= 'k:lead' and not limits[field] then
    redis.call('HDEL', state, field)
  end
end
redis.call('HSET', learned, 'state', text)
return 1
