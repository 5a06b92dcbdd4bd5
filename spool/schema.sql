-- version 1
CREATE TABLE "images" (
   "id" TEXT PRIMARY KEY NOT NULL,
   "digest" TEXT NOT NULL,
   "recipe" TEXT NOT NULL,
   "platform" TEXT NOT NULL,
   "size" INTEGER NOT NULL,
   "layers" TEXT,
   "labels" TEXT
);
CREATE INDEX "idx_images_digest_recipe"
    ON "images" ("digest", "recipe");
CREATE TABLE "names" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "image" TEXT NOT NULL REFERENCES "images"("id"),
   "time" INTEGER NOT NULL
);
CREATE TABLE "pulls" (
   "request" TEXT PRIMARY KEY NOT NULL,
   "uid" INTEGER NOT NULL,
   "name" TEXT NOT NULL,
   "image" TEXT NOT NULL,
   "time" INTEGER NOT NULL,
   "built" INTEGER NOT NULL
);
CREATE TABLE "seen" (
   "generation" INTEGER NOT NULL
);
