-- Adds entries. Of two of one address and scope the earlier one stands; of equal
-- times, the one that was there.
-- KEYS 1 meta (hash: n = addresses, v = version) 2.. the hash of each entry
-- ARGV address and record of each entry (record.go says what a record is)
-- Returns a string with a letter an entry: a added, e earlier than what was there and
-- put in its place, k known already.
local function seconds(record, at)
  local a, b, c, d = string.byte(record, at + 2, at + 5)
  return a and d and ((a * 256 + b) * 256 + c) * 256 + d
end

-- Puts record into value. Returns the letter, and the value if it changed.
local function merge(value, record)
  local scope = string.byte(record, 2) % 8
  local at = 1
  while at <= #value do
    local next = at + 1 + string.byte(value, at)
    local head = string.byte(value, at + 1)
    if head and head % 8 == scope then
      local stands = seconds(value, at)
      if not stands or seconds(record, 1) >= stands then return 'k' end
      return 'e', string.sub(value, 1, at - 1) .. record .. string.sub(value, next)
    end
    at = next
  end
  return 'a', value .. record
end

local said, new, changed = {}, 0, false
for i = 2, #KEYS do
  local address, record = ARGV[2 * i - 3], ARGV[2 * i - 2]
  if redis.call('HSETNX', KEYS[i], address, record) == 1 then
    said[#said + 1] = 'a'
    new = new + 1
    changed = true
  else
    local letter, value = merge(redis.call('HGET', KEYS[i], address), record)
    said[#said + 1] = letter
    if value then
      redis.call('HSET', KEYS[i], address, value)
      changed = true
    end
  end
end
if changed then
  redis.call('HINCRBY', KEYS[1], 'n', new)
  -- Never less than the time in microseconds: a counter set back by a restore would
  -- come to a number again that somebody has seen.
  local t = redis.call('TIME')
  local v = tonumber(redis.call('HGET', KEYS[1], 'v') or '0') + 1
  redis.call('HSET', KEYS[1], 'v', string.format('%.0f', math.max(v, t[1] * 1000000 + t[2])))
end
return table.concat(said)
