-- Removes the entries of one scope. Whatever of a value does not decode goes with
-- the entry for all streams.
-- KEYS 1 meta (hash: n = addresses, v = version) 2.. the hash of each address
-- ARGV 1 scope as a number 2.. the addresses
-- Returns for each address what its value was before if it was changed, else ''.
local scope = tonumber(ARGV[1])

-- Reports whether scope, time and the two texts of a record are there.
local function readable(record)
  local n, head = string.byte(record, 1, 2)
  if #record < n + 1 or n < 5 or head % 8 > 3 then return false end
  local at = 7
  for _ = 1, 2 do
    local tag = string.byte(record, at)
    if not tag then return false end
    at = at + 1 + (tag == 255 and 3 or tag)
  end
  return at - 1 <= #record
end

-- Returns value without the records of the scope.
local function without(value)
  local kept, at = {}, 1
  while at <= #value do
    local record = string.sub(value, at, at + string.byte(value, at))
    local mine = false
    if readable(record) then
      mine = string.byte(record, 2) % 8 == scope
    else
      mine = scope == 0
    end
    if not mine then kept[#kept + 1] = record end
    at = at + #record
  end
  return table.concat(kept)
end

local before, gone, changed = {}, 0, false
for i = 2, #KEYS do
  local old = redis.call('HGET', KEYS[i], ARGV[i]) or ''
  local new = without(old)
  before[i - 1] = ''
  if new ~= old then
    before[i - 1] = old
    changed = true
    if new == '' then
      redis.call('HDEL', KEYS[i], ARGV[i])
      gone = gone + 1
    else
      redis.call('HSET', KEYS[i], ARGV[i], new)
    end
  end
end
if changed then
  redis.call('HINCRBY', KEYS[1], 'n', 0 - gone) -- the negative of 0 would be '-0', which is no number to Redis
  -- Never less than the time in microseconds: see add.lua.
  local t = redis.call('TIME')
  local v = tonumber(redis.call('HGET', KEYS[1], 'v') or '0') + 1
  redis.call('HSET', KEYS[1], 'v', string.format('%.0f', math.max(v, t[1] * 1000000 + t[2])))
end
return before
